"""Figures of lists, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from recsys.evaluation.pointwise import auc
from recsys.evaluation.shown_lists import AS_DISPLAYED, FIGURES, MOST_RECENT_FIRST, ShownLists

# list, place, label, touched: 7 chose two of four; 9 chose one of three; 4 is one item, which was
# chosen; in 5 nothing was chosen; 0 is no list
ROWS = [
    (7, 1, 0, 0), (7, 2, 1, 5), (7, 3, 0, 2), (7, 4, 1, 0),
    (9, 3, 1, 0), (9, 1, 0, 0), (9, 2, 0, 0),
    (4, 1, 1, 3),
    (5, 1, 0, 1), (5, 2, 0, 0),
    (0, 0, 1, 0), (0, 0, 0, 0),
]  # fmt: skip


def shown(rows: Sequence[tuple[int, int, int, int]] = ROWS) -> ShownLists:
    lists, places, labels, touched = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return ShownLists(lists, lists + 100, places, touched, labels.astype(np.float32))


def by_list(scores: np.ndarray) -> dict[int, list[float]]:
    figures = shown().judge(scores)
    assert figures.judged == 3 and (figures.users == figures.lists + 100).all()
    return dict(zip(figures.lists.tolist(), figures.values.tolist(), strict=True))


def test_orders_that_cost_nothing_have_the_figures_worked_out_by_hand() -> None:
    orders = shown().orders()
    never = -np.inf
    lists = [never, -5, -2, never, never, never, never, -3, -1, never, never, never]
    assert orders[MOST_RECENT_FIRST].tolist() == lists
    two = 1 + 1 / np.log2(3)  # the gain of two chosen at the top
    values = by_list(orders[AS_DISPLAYED])
    # 7: passed, chosen, passed, chosen: the second stands before one of two, the fourth before none
    assert values[7] == pytest.approx([1 / 2, 1 / 4, (1 / np.log2(3) + 1 / np.log2(5)) / two])
    assert values[9] == pytest.approx([1 / 3, 0, 1 / 2])
    assert values[4] == pytest.approx([1, np.nan, 1], nan_ok=True)
    assert np.isnan(values[5]).all()
    values = by_list(orders[MOST_RECENT_FIRST])
    # 7: the third was touched last, then the second, and others stay in their order
    assert values[7] == pytest.approx([1 / 2, 1 / 4, (1 / np.log2(3) + 1 / np.log2(5)) / two])
    assert values[9] == pytest.approx([1 / 3, 0, 1 / 2])
    metrics = shown().judge(orders[AS_DISPLAYED]).metrics
    assert metrics["MRR"] == pytest.approx((1 / 2 + 1 / 3 + 1) / 3)
    assert metrics["ListAUC"] == pytest.approx((1 / 4 + 0) / 2)


def test_equal_scores_stay_as_displayed_and_the_order_of_rows_says_nothing() -> None:
    scores = np.array([0, 3, 1, 3, 1, 1, 0, 0, 0, 0, 0, 0.0])
    values = by_list(scores)
    assert values[7] == pytest.approx([1, 1, 1])
    assert values[9] == pytest.approx([1 / 2, 1 / 2, 1 / np.log2(3)])  # behind its equal before it
    order = np.random.default_rng(0).permutation(len(ROWS))
    again = shown([ROWS[row] for row in order]).judge(scores[order])
    np.testing.assert_allclose(again.values, [values[code] for code in sorted(values)])


def test_without_ties_auc_is_that_of_the_rows_of_each_list() -> None:
    random = np.random.default_rng(1)
    lists = random.integers(1, 40, 300)
    labels = (random.random(300) < 0.3).astype(np.float32)
    scores = random.permutation(300).astype(np.float32)
    rows = ShownLists(lists, lists, np.ones(300), np.zeros(300), labels)
    figures = rows.judge(scores)
    for code, value in zip(figures.lists, figures.values[:, 1], strict=True):
        of_list = lists == code
        assert value == pytest.approx(auc(labels[of_list], scores[of_list]), nan_ok=True)
    low, high = figures.intervals(200)["MRR"]
    assert low < figures.metrics["MRR"] < high


def test_no_lists_have_no_figures() -> None:
    none = shown([]).judge(np.zeros(0))
    assert none.judged == 0 and np.isnan(list(none.metrics.values())).all()
    table = none.table(pa.array([], pa.int64()), pa.array([], pa.int64()))
    assert table.column_names == ["list", "user", "length", *FIGURES] and not table.num_rows
