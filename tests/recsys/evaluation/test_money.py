"""Money: hand-computed values of lists of known worth."""

from __future__ import annotations

from math import log2, nan

import numpy as np
import pytest
import torch

from feature_store.errors import DataError
from recsys.evaluation.money import (
    expected_revenue,
    gmv,
    gmv_capture,
    price_ndcg,
    profit,
    profit_capture,
)

KS = torch.tensor([1, 2, 5])

# user 1 bought for 30, 20 and 50, and the list found 20 first, 30 third; user 2's list found
# nothing of 100; user 3 gave a purchase back, at a loss of 5
VALUES_AT = torch.tensor([[20, 0, 30], [0, 0, 0], [-5, 0, 10]], dtype=torch.float64)
TARGET_VALUES = torch.tensor([[30, 20, 50], [100, 0, 0], [-5, 0, 10]], dtype=torch.float64)


def close(values: torch.Tensor, expected: list[list[float]]) -> None:
    want = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(values, want, equal_nan=True)


def test_gmv_is_the_money_found_net_of_returns() -> None:
    close(gmv(VALUES_AT, KS), [[20, 20, 50], [0, 0, 0], [-5, -5, 5]])


def test_capture_is_a_share_of_all_money_and_not_a_mean_of_shares() -> None:
    spent = TARGET_VALUES.sum(1).numpy()
    captured = gmv_capture(gmv(VALUES_AT, KS).numpy(), spent)
    np.testing.assert_allclose(captured, [15 / 205, 15 / 205, 55 / 205])


def test_capture_of_no_money_is_unknown() -> None:
    assert np.isnan(gmv_capture(np.zeros((2, 3)), np.zeros(2))).all()
    assert np.isnan(gmv_capture(np.ones((1, 1)), np.array([-3.0]))).all()


def test_profit_capture_is_of_what_the_best_lists_bring_and_may_be_a_loss() -> None:
    """Of 6 and -4 the best list brings 6, of -3 nothing; the lists find -4, then 6 and -3."""
    found = profit(torch.tensor([[-4.0, 6], [0, -3]], dtype=torch.float64), torch.tensor([1, 2]))
    close(found, [[-4, 2], [0, -3]])
    captured = profit_capture(found.numpy(), np.array([6.0, 0]))
    np.testing.assert_allclose(captured, [-4 / 6, -1 / 6])
    assert np.isnan(profit_capture(found.numpy(), np.zeros(2))).all()


def test_price_ndcg_by_hand() -> None:
    second, third = 1 / log2(3), 1 / 2
    found, ideal = 20 + 30 * third, 50 + 30 * second + 20 * third
    expected = [
        [20 / 50, 20 / (50 + 30 * second), found / ideal],
        [0, 0, 0],
        [0, 0, 10 * third / 10],  # what was given back gains nothing
    ]
    close(price_ndcg(VALUES_AT, TARGET_VALUES, KS), expected)


def test_price_ndcg_is_1_for_targets_by_falling_price_and_less_for_any_other_order() -> None:
    values = torch.tensor([[50, 30, 20], [50, 20, 30]], dtype=torch.float64)
    best, other = price_ndcg(values, values, torch.tensor([1, 2, 3])).tolist()
    assert best == pytest.approx([1, 1, 1])
    assert other[0] == 1 and other[1] < 1 and other[2] < 1


def test_targets_worth_nothing_have_no_price_ndcg() -> None:
    nothing = torch.tensor([[0.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    close(price_ndcg(nothing, nothing, KS), [[nan] * 3] * 2)


def test_expected_revenue_by_hand() -> None:
    probabilities = torch.tensor([[0.5, 0.1, 0.0], [1.0, 0.0, 0.25]])
    prices = torch.tensor([[10.0, 200.0, 7.0], [3.0, 9.0, 4.0]], dtype=torch.float64)
    values = expected_revenue(probabilities.double(), prices, KS)
    close(values, [[5, 25, 25], [3, 3, 4]])


@pytest.mark.parametrize("wrong", [1.5, -0.1, nan])
def test_scores_that_are_no_probabilities_are_refused(wrong: float) -> None:
    """By the first of them."""
    probabilities = torch.tensor([[0.5, 0.5], [0.5, wrong], [wrong, wrong]])
    with pytest.raises(DataError, match=f"row 1, position 2 holds {wrong:g}.*from 0 to 1"):
        expected_revenue(probabilities, torch.ones(3, 2), KS)
