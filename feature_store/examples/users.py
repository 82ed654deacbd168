"""What is known of users beside their events: of all of them, or of those that a catalogue has."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class UserFeatures:
    """A table with a row a user, row 0 of nobody. Users are known by their rows or, where they have
    no vocabulary, by their `codes` [rows]; then whoever has no row is nobody."""

    table: pa.Table
    codes: np.ndarray | None = None

    def of(self, users: pa.ChunkedArray) -> pa.Table:
        """The rows [n] of users [n]."""
        if self.codes is None:
            return self.table.take(users)
        wanted = users.to_numpy()
        order, known = self._sorted
        places = np.searchsorted(known, wanted)
        there = places < len(known)
        there[there] = known[places[there]] == wanted[there]
        rows = np.zeros(len(wanted), np.int64)
        rows[there] = order[places[there]]
        return self.table.take(pa.array(rows))

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        assert self.codes is not None
        order = np.argsort(self.codes, kind="stable")
        return order, self.codes[order]
