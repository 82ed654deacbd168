"""Lists that a finished retriever makes of the past of examples: negatives are drawn from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from feature_store.columns import SECONDS, TIME, USER_ROW
from feature_store.examples.blocks import Block
from feature_store.examples.histories import histories_of
from feature_store.examples.users import UserFeatures
from feature_store.negatives import Find
from feature_store.schema import Schema

PREFIX = "listed."
"""Of the names of histories that only the retriever reads; no feature's name holds the point."""

_REQUESTS = 512  # whose histories are in memory at a time


@dataclass(frozen=True)
class ListsOf:
    """What a finished retriever finds for rows of a block, by the `histories` that it reads, whose
    names begin with PREFIX in the block. `users` holds the features of users."""

    find: Find
    histories: Mapping[str, tuple[str, ...]]
    schema: Schema
    users: UserFeatures

    def __call__(
        self, block: Block, known: np.ndarray, rows: np.ndarray, begin: np.ndarray, end: np.ndarray
    ) -> np.ndarray:
        """Item rows [m, budget] for the block's `rows` [m], of which block rows begin[i] to end[i]
        are the past, as far as they are `known` [n]. Rows with the same past have the same list,
        that of the first of them."""
        _, first, of_row = np.unique(end, return_index=True, return_inverse=True)
        made = []
        for start in range(0, len(first), _REQUESTS):
            some = first[start : start + _REQUESTS]
            past = histories_of(block, self.histories, known, begin[some], end[some])
            event = block.rows.select([USER_ROW, SECONDS]).take(pa.array(rows[some]))
            requests = pa.table(
                {
                    self.schema.user: event[USER_ROW],
                    TIME: event[SECONDS],
                    **{name.removeprefix(PREFIX): lists for name, lists in past.items()},
                }
            )
            beside = self.users.of(event[USER_ROW])
            for name in beside.column_names:
                requests = requests.append_column(beside.schema.field(name), beside[name])
            made.append(self.find(requests))
        of_rows: np.ndarray = np.concatenate(made)[of_row] if made else np.zeros((0, 1), np.int64)
        return of_rows
