"""What was before a request: lists of earlier events, and their moments."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from feature_store.columns import ITEM_ROW, SECONDS, time_of
from feature_store.examples.blocks import Block, spans
from feature_store.examples.encode import member_of


def histories_of(
    block: Block,
    histories: Mapping[str, tuple[str, ...]],
    shown: np.ndarray,
    begin: np.ndarray,
    end: np.ndarray,
    length: int | None = None,
) -> dict[str, pa.Array]:
    """Each history of m requests, the i-th made of the `shown` [n] rows begin[i] to end[i] of the
    block, or the last `length` of them; and the seconds beside it."""
    lists: dict[str, pa.Array] = {}
    for name in histories:
        limited = member_of(name) in block.rows.column_names
        kept = shown & block.column(member_of(name)) if limited else shown
        before = np.concatenate([[0], np.cumsum(kept)])  # kept rows before each row
        first, last = before[begin], before[end]
        if length is not None:
            first = np.maximum(first, last - length)
        for column, source in ((name, ITEM_ROW), (time_of(name), SECONDS)):
            values = block.rows.column(source).filter(pa.array(kept)).combine_chunks()
            lists[column] = spans(values, first, last)
    return lists
