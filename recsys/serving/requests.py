"""Raw requests -> the tensors that a bundle's program reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from feature_store.errors import DataError
from feature_store.vocabulary import Vocabulary
from recsys.inputs import Input


def table_of(requests: pd.DataFrame | pa.Table | None) -> pa.Table:
    """Requests as a table. Raises DataError for values that are no columns."""
    if isinstance(requests, pa.Table):
        return requests
    try:
        return pa.Table.from_pandas(requests, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"requests cannot be read: {error}") from None


def tensor_of(one: Input, requests: pa.Table, vocabulary: Vocabulary | None) -> Tensor:
    """One input of all requests; a column that is absent holds what is unknown.

    Raises DataError naming a column whose values are of the wrong type.
    """
    with reading(one.name):
        missing = one.name not in requests.column_names
        if one.kind == "dense":
            if missing:
                return torch.zeros(requests.num_rows)
            values = requests.column(one.name).cast(pa.float32()).to_numpy()  # null becomes NaN
            return torch.from_numpy(np.where(np.isnan(values), np.float32(0), values))
        assert vocabulary is not None
        if one.kind == "id":
            if missing:
                return torch.zeros(requests.num_rows, dtype=torch.int64)
            return torch.from_numpy(vocabulary.encode(requests.column(one.name)).copy())
        if missing:
            return torch.zeros(requests.num_rows, 1, dtype=torch.int64)
        return torch.from_numpy(padded(lists_of(requests, one.name), vocabulary, one.length))


@contextmanager
def reading(column: str) -> Iterator[None]:
    """Values of the wrong type as an error that names their column."""
    try:
        yield
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise DataError(f"column {column!r} of the requests cannot be read: {reason}") from None


def lists_of(requests: pa.Table, name: str) -> pa.ListArray:
    """A column of lists; nulls are empty. Raises DataError when it holds none."""
    column = requests.column(name).combine_chunks()
    if pa.types.is_null(column.type):
        return pa.array([[]] * len(column), pa.list_(pa.int64()))
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        raise DataError(f"column {name!r} must hold lists of ids, not {column.type}")
    return pc.fill_null(column, pa.scalar([], column.type)) if column.null_count else column


def padded(lists: pa.ListArray, vocabulary: Vocabulary, length: int | None) -> np.ndarray:
    """Rows [B, L] of the known ids, the last `length`, padded with 0 behind."""
    parent = pc.list_parent_indices(lists).to_numpy()
    rows = vocabulary.encode(pc.list_flatten(lists))
    parent, rows = parent[rows != 0], rows[rows != 0]
    counts = np.bincount(parent, minlength=len(lists))
    from_end = np.repeat(np.cumsum(counts), counts) - np.arange(len(rows))  # 1 = the last
    width = max(
        1, int(counts.max(initial=0)) if length is None else min(length, int(counts.max(initial=0)))
    )
    kept = from_end <= width
    place = np.minimum(counts, width)[parent[kept]] - from_end[kept]
    out = np.zeros((len(lists), width), dtype=np.int64)
    out[parent[kept], place] = rows[kept]
    return out
