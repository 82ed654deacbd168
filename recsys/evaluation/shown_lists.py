"""Lists as they were shown, ordered anew: where what was chosen comes to stand.

n rows, each of an item in a list; L lists. A list is ordered by falling score, and equal scores
stay as they were displayed: that is what sorting the list that was shown does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recsys.statistics.bootstrap import mean_intervals

FIGURES = ("MRR", "ListAUC", "NDCG")
AS_DISPLAYED, MOST_RECENT_FIRST = "as_displayed", "most_recent_first"


@dataclass(frozen=True)
class ShownLists:
    """Rows, in any order; those of list 0 are in none, and have no part in figures.

    Attributes:
        lists: codes of the lists [n].
        users: of those whom they were shown to [n].
        places: where in its list an item was displayed [n], from 1.
        touched: how many events ago the user had touched the item [n], 0 for never.
        labels: 1 where an item was chosen, else 0 [n].
    """

    lists: np.ndarray
    users: np.ndarray
    places: np.ndarray
    touched: np.ndarray
    labels: np.ndarray

    def orders(self) -> dict[str, np.ndarray]:
        """What costs nothing to learn, as scores [n]: the displayed order, and before it what the
        user touched, the last of it first."""
        recent = np.where(self.touched > 0, -self.touched.astype(np.float64), -np.inf)
        return {AS_DISPLAYED: -self.places.astype(np.float64), MOST_RECENT_FIRST: recent}

    def judge(self, scores: np.ndarray) -> ListFigures:
        """Figures of every list whose items have the scores [n]."""
        order = np.lexsort([self.places, -scores, self.lists])
        order = order[self.lists[order] != 0]
        lists, chosen = self.lists[order], self.labels[order] == 1
        starts = np.flatnonzero(np.diff(lists, prepend=lists[:1] - 1))
        lengths = np.diff(starts, append=len(lists))
        rank = np.arange(len(lists)) - np.repeat(starts, lengths) + 1

        def sums(values: np.ndarray) -> np.ndarray:
            return np.add.reduceat(values, starts) if len(starts) else values[:0]

        positives = sums(chosen.astype(np.int64))
        # of every negative how many positives stand before it
        before = np.cumsum(chosen) - np.repeat(np.cumsum(positives) - positives, lengths)
        won = sums(np.where(chosen, 0, before))
        discounts = 1 / np.log2(1 + np.arange(1, lengths.max(initial=0) + 1))
        ideal = np.concatenate([[0.0], np.cumsum(discounts)])[positives]
        inverse = np.where(chosen, 1 / rank, 0.0)
        first = np.maximum.reduceat(inverse, starts) if len(starts) else np.zeros(0)
        return ListFigures(
            lists=lists[starts],
            users=self.users[order][starts],
            lengths=lengths,
            values=np.stack(
                [
                    np.where(positives > 0, first, np.nan),
                    _quotients(won, positives * (lengths - positives)),
                    _quotients(sums(np.where(chosen, discounts[rank - 1], 0.0)), ideal),
                ],
                axis=1,
            ),
        )


@dataclass(frozen=True)
class ListFigures:
    """Figures of lists: codes, users and lengths [L], and `values` [L, FIGURES].

    MRR: one over the rank of the first chosen item (Voorhees, TREC-8 1999). ListAUC: the share of
    pairs of a chosen and another item that are in order; with one chosen `1 - (rank - 1) /
    (length - 1)`. NDCG: the sum of `1 / log2(1 + rank)` over the chosen, over that of the best
    order (Jarvelin & Kekalainen, 2002). NaN: a list without anything chosen, or of ListAUC with
    nothing else, has none and is left out of the mean.
    """

    lists: np.ndarray
    users: np.ndarray
    lengths: np.ndarray
    values: np.ndarray

    @property
    def judged(self) -> int:
        """Lists in which anything was chosen."""
        return int((~np.isnan(self.values[:, 0])).sum())

    @property
    def metrics(self) -> dict[str, float]:
        """Means over lists, by name; NaN where no list has such a figure."""
        counts = (~np.isnan(self.values)).sum(axis=0)
        return dict(zip(FIGURES, _quotients(np.nansum(self.values, axis=0), counts), strict=True))

    def intervals(self, replicates: int) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over lists, by name."""
        low, high = mean_intervals(self.values, replicates=replicates)
        return {n: (float(a), float(b)) for n, a, b in zip(FIGURES, low, high, strict=True)}

    def table(self, list_ids: pa.Array, user_ids: pa.Array) -> pa.Table:
        """One row a list, with raw ids; what has no figure is NaN."""
        columns = {"list": list_ids, "user": user_ids, "length": self.lengths}
        return pa.table({**columns, **dict(zip(FIGURES, self.values.T, strict=True))})


def _quotients(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    below = np.asarray(below, dtype=np.float64)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)
