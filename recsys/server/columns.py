"""Rows of a question as a table under the log's names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from feature_store.errors import DataError
from feature_store.schema import Schema
from recsys.serving.requests import by_names_of_log


def as_table(rows: Sequence[Mapping[str, Any]], schema: Schema, what: str) -> pa.Table:
    """A column for every name in any of the rows. Raises DataError naming one that cannot be read
    of `what` they are."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column(name, [row.get(name) for row in rows], what) for name in names}
    return by_names_of_log(pa.table(columns), schema)


def _column(name: str, values: Sequence[Any], what: str) -> pa.Array:
    """Values of one type; of several as texts, which a log reads as well."""
    if len({type(value) for value in values if value is not None}) > 1:
        values = [None if value is None else str(value) for value in values]
    try:
        return pa.array(values)
    except OverflowError:
        return pa.array([None if value is None else str(value) for value in values])
    except pa.ArrowException as error:
        raise DataError(f"{what}: column {name!r} cannot be read: {error}") from None
