"""AUC as it is expected of known chances, by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.known_clicks import counted, expected_aucs


def test_pairs_weigh_by_the_chance_that_one_is_clicked_and_the_other_is_not() -> None:
    """Three rows, the last two tied, clicked with 1/4, 1/2 and 1 of 1.

    Clicked sums to 7/4, passed to 5/4. Won: 1/2 and 1 of the upper two against the 3/4 of the
    lowest, 9/8; tied: 3/2 against the 1/2 passed of their own, and 1/4 against the lowest itself,
    each half.
    """
    scores, chances = np.array([3.0, 1.0, 3.0]), np.array([0.5, 0.25, 1.0])
    won = 9 / 8 + (3 / 2 * 1 / 2 + 1 / 4 * 3 / 4) / 2
    counts = np.array([[1, 1, 1], [2, 0, 1]])
    twice = (2 * 1) / 2  # clicked 2 of 2, passed 1 of 2, all tied
    expected = [won / (7 / 4 * 5 / 4), twice / 2]
    assert expected_aucs(scores, chances, counts) == pytest.approx(expected)


def test_users_are_drawn_with_all_their_rows() -> None:
    counts = counted(pd.Series(["a", "b", "a", "c"]), 50)
    assert (counts[0] == 1).all() and (counts[:, 0] == counts[:, 2]).all()
    assert (counts[1:, [0, 1, 3]].sum(axis=1) == 3).all() and counts[1:].std() > 0
