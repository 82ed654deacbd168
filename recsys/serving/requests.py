"""What people ask with, and what they are answered with: frames and lists outside, tables inside.

Whole numbers keep every digit on the way in and out, or the way in is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import DataError
from feature_store.schema import Schema

USER, ITEM = "user", "item"  # which stand for the log's own names
_NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype()}


def table_of(requests: pd.DataFrame | pa.Table | None) -> pa.Table:
    """Requests as a table. Raises DataError for values that are no columns."""
    if isinstance(requests, pa.Table):
        return requests
    if not isinstance(requests, pd.DataFrame):
        raise DataError(f"requests must be a frame or a table, not {type(requests).__name__}")
    columns = {}
    for place, name in enumerate(requests.columns):
        try:
            columns[str(name)] = array_of(requests.iloc[:, place])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"requests cannot be read: column {name!r}: {error}") from None
    return pa.table(columns)


def ids_of(users: Any) -> pa.Array:
    """Ids as an array: of one user, or of a list, an array, a series. Raises DataError for ids of
    several types."""
    if isinstance(users, pa.Array | pa.ChunkedArray):
        return users
    if isinstance(users, str | bytes) or not hasattr(users, "__iter__"):
        users = [users]
    values = users if isinstance(users, pd.Series | np.ndarray) else list(users)
    try:
        return array_of(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"users must be of one type: {error}") from None


def by_names_of_log(requests: pa.Table, schema: Schema) -> pa.Table:
    """The same requests, where the columns `user` and `item` may stand for the log's own names."""
    names = list(requests.column_names)
    for alias, name in ((USER, schema.user), (ITEM, schema.item)):
        if name not in names and alias in names and schema.find(alias) is None:
            names[names.index(alias)] = name
    return requests.rename_columns(names)


def frame_of(table: pa.Table) -> pd.DataFrame:
    """A table as a frame in which integers stay integers where some are missing."""
    frame = table.to_pandas()
    for name in table.column_names:
        column = table.column(name)
        kind = column.type
        if pa.types.is_integer(kind) and column.null_count:
            frame[name] = column.to_pandas(types_mapper=_NULLABLE.get)
        elif _holds_integers(kind) and pc.list_flatten(column).null_count:  # doubles elsewise
            frame[name] = pd.Series(column.to_pylist(), dtype=object)
    return frame


def _holds_integers(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_integer(kind.value_type)


def array_of(values: Any) -> pa.Array:
    try:
        array = pa.array(values, from_pandas=True)
    except OverflowError:  # beyond 64 bits
        array = pa.array([_digits(value) for value in values])
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _digits(value: Any) -> Any:
    if isinstance(value, list | tuple | np.ndarray):
        return [_digits(entry) for entry in value]
    return str(value) if isinstance(value, int) else value
