"""Rules that lines of shops keep, and what their lines say most often."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Rule(NamedTuple):
    """A line is an event only if its `column` matches `pattern`; with `forbids`, if it does not."""

    column: str
    pattern: str
    reason: str
    forbids: bool = False

    def breaks(self, table: pa.Table) -> np.ndarray:
        """Mask [rows] of the lines that break the rule."""
        matches = np.asarray(pc.match_substring_regex(table[self.column], self.pattern))
        return matches if self.forbids else ~matches


def most_frequent(parts: Iterable[pa.Table], key: str, column: str) -> tuple[pa.Table, np.ndarray]:
    """A row for each `key` with its most frequent `column`, and the first line that says so.

    `parts` hold both, and `line`. Of equals the first by alphabet; a value that is null counts
    nothing, and stands only where there is no other.
    """
    rows = pa.concat_tables(part.select([key, column, "line"]) for part in parts)
    rows = rows.append_column("known", pc.is_valid(rows[column]).cast(pa.int64()))
    counts = rows.group_by([key, column], use_threads=False)
    table = counts.aggregate([("known", "sum"), ("line", "min")]).sort_by(
        [(key, "ascending"), ("known_sum", "descending"), (column, "ascending")]
    )
    best = table.filter(pa.array(~table[key].to_pandas().duplicated().to_numpy()))
    return best.select([key, column]), best["line_min"].to_numpy()
