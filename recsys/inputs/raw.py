"""Columns of raw requests: lists, moments, and errors that name the column."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import DataError
from feature_store.vocabulary import Vocabulary


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


def seconds(moments: pa.Array) -> np.ndarray:
    """Whole seconds since 1970 of timestamps, or of numbers that are such; nulls are 0."""
    if pa.types.is_timestamp(moments.type):
        moments = pc.floor_temporal(moments, unit="second").cast(pa.timestamp("s", "UTC"))
    return moments.cast(pa.int64(), safe=False).fill_null(0).to_numpy(False).copy()


def rows_of_lists(
    requests: pa.Table, name: str, vocabulary: Vocabulary, length: int | None
) -> np.ndarray:
    """Rows [B, L] of the known ids in a list column, [B, 1] of 0 where it is absent."""
    if name not in requests.column_names:
        return np.zeros((requests.num_rows, 1), dtype=np.int64)
    with reading(name):
        return padded(lists_of(requests, name), vocabulary, length)


def ids_of_rows(rows: pa.Table, name: str, vocabulary: Vocabulary) -> pa.ListArray:
    """A list column of rows as raw ids."""
    column = rows.column(name).combine_chunks()
    return pa.ListArray.from_arrays(column.offsets, vocabulary.decode(column.values.to_numpy()))


def padded(
    lists: pa.ListArray,
    vocabulary: Vocabulary,
    length: int | None,
    values: np.ndarray | None = None,
) -> np.ndarray:
    """Rows [B, L] of the known ids, the last `length`, padded with 0 behind; or, in their
    stead, `values` [all ids of the lists]."""
    parent = pc.list_parent_indices(lists).to_numpy()
    rows = vocabulary.encode(pc.list_flatten(lists))
    known = rows != 0
    parent, rows = parent[known], (rows if values is None else values)[known]
    counts = np.bincount(parent, minlength=len(lists))
    from_end = np.repeat(np.cumsum(counts), counts) - np.arange(len(rows))  # 1 = the last
    width = max(
        1, int(counts.max(initial=0)) if length is None else min(length, int(counts.max(initial=0)))
    )
    kept = from_end <= width
    columns = np.minimum(counts, width)[parent[kept]] - from_end[kept]
    out = np.zeros((len(lists), width), dtype=np.int64)
    out[parent[kept], columns] = rows[kept]
    return out
