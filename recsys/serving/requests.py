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


def times_of(requests: pa.Table, history: str, name: str, items: Vocabulary, length: int) -> Tensor:
    """Seconds [B, L] of the events in `history`, from a list column beside it; 0 where absent.

    Raises DataError where a list is not as long as the history.
    """
    lists = lists_of(requests, history)
    if name not in requests.column_names:
        return torch.from_numpy(padded(lists, items, length) * 0)
    with reading(name):
        found = lists_of(requests, name)
        odd = np.flatnonzero(np.diff(found.offsets) != np.diff(lists.offsets))
        if len(odd):
            raise DataError(
                f"request {odd[0]} has {len(found[int(odd[0])])} values in {name!r} and "
                f"{len(lists[int(odd[0])])} in {history!r}: give one for each event"
            )
        return torch.from_numpy(padded(lists, items, length, _seconds(pc.list_flatten(found))))


def moments_of(requests: pa.Table, name: str, times: Tensor) -> Tensor:
    """Seconds [B] of the requests; where they do not say, of the last event in `times` [B, L]."""
    latest = times.amax(1)
    if name not in requests.column_names:
        return latest
    with reading(name):
        column = requests.column(name).combine_chunks()
        given = torch.from_numpy(_seconds(column))
        return torch.where(torch.from_numpy(column.is_valid().to_numpy(False)), given, latest)


def _seconds(moments: pa.Array) -> np.ndarray:
    """Whole seconds since 1970 of timestamps, or of numbers that are such; nulls are 0."""
    if pa.types.is_timestamp(moments.type):
        moments = pc.floor_temporal(moments, unit="second").cast(pa.timestamp("s", "UTC"))
    return moments.cast(pa.int64(), safe=False).fill_null(0).to_numpy(False).copy()


def padded(
    lists: pa.ListArray,
    vocabulary: Vocabulary,
    length: int | None,
    values: np.ndarray | None = None,
) -> np.ndarray:
    """Rows [B, L] of the known ids, the last `length`, padded with 0 behind; or what `values`
    hold in their places."""
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
    place = np.minimum(counts, width)[parent[kept]] - from_end[kept]
    out = np.zeros((len(lists), width), dtype=np.int64)
    out[parent[kept], place] = rows[kept]
    return out
