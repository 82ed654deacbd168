"""Numbers of items beside those that they were shown with: how dear one is among its list."""

from __future__ import annotations

import numpy as np

from feature_store.columns import compared_of

WAYS = ("rank", "last")
"""How a number is compared; see `in_lists`."""


def in_lists(
    name: str, values: np.ndarray, lists: np.ndarray, touched: np.ndarray
) -> dict[str, np.ndarray]:
    """By their columns, float32 [n], what numbers `values` [n] called `name` are in their lists.

    rank: the share of the others in the list whose number is lower, and half of those where it is
    equal; alone .5. last: the difference from what the user touched last of the list, both as
    `sign(x) log(1 + |x|)`, so that of large numbers it is the log of their quotient. NaN is
    unknown.

    Args:
        lists: codes [n], 0 for none.
        touched: how many events ago the user touched the item [n], 0 for never; of those touched
            last together, as an item that a list repeats, the lowest number counts.
    """
    values = values.astype(np.float64)
    rank, last = np.full(len(values), np.nan), np.full(len(values), np.nan)
    order = np.lexsort([values, lists])
    order = order[(lists[order] != 0) & ~np.isnan(values[order])]
    if len(order):
        codes, numbers = lists[order], values[order]
        another = np.diff(codes, prepend=codes[0] - 1) != 0
        starts = np.flatnonzero(another)
        lengths = np.diff(starts, append=len(order))
        of_list = np.cumsum(another) - 1
        # equal numbers of a list share the mean of their ranks, from 0
        runs = np.flatnonzero(another | (np.diff(numbers, prepend=numbers[0]) != 0))
        equal = np.diff(runs, append=len(order))
        ranks = np.repeat(runs - starts[of_list[runs]] + (equal - 1) / 2, equal)
        others = lengths[of_list] - 1
        rank[order] = np.where(others > 0, ranks / np.maximum(others, 1), 0.5)
        logs = np.sign(values) * np.log1p(np.abs(values))
        last[order] = logs[order] - _of_latest(codes, lists, touched, logs)
    columns = zip(WAYS, (rank, last), strict=True)
    return {compared_of(name, way): column.astype(np.float32) for way, column in columns}


def _of_latest(
    codes: np.ndarray, lists: np.ndarray, touched: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """Of lists with these `codes` what the row that was touched last has of `values`; NaN where
    none was."""
    rows = np.flatnonzero((lists != 0) & (touched > 0))
    if not len(rows):
        return np.full(len(codes), np.nan)
    rows = rows[np.lexsort([values[rows], touched[rows], lists[rows]])]
    known, first = np.unique(lists[rows], return_index=True)
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[place] == codes, values[rows[first]][place], np.nan)
