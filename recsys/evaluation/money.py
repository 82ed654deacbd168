"""What a list is worth: metrics in the currency of the catalogue.

Legend: B users, K positions, L targets, C cut-offs. Money is float64, in units of the currency, net
of returns and cancelled orders. `ks` [C] int64 are ascending cut-offs. An empty position is worth
0. In the formulas r runs over the ranks 1..k.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from feature_store.errors import DataError
from recsys.evaluation.metrics import sums_at


def gmv(values_at: Tensor, ks: Tensor) -> Tensor:
    """GMV@k: what the user spent in the test on the items at the first k positions; [B, C].

    `values_at` [B, K] is price x quantity of the user's test purchases of the item at each
    position, 0 where the item is no target. Gross merchandise volume, the retailers' usual measure
    of sales, restricted to what the list would have shown.
    """
    return sums_at(values_at, ks)


def profit(profits_at: Tensor, ks: Tensor) -> Tensor:
    """Profit@k: GMV@k less what the goods cost the seller; [B, C], below 0 for sales at a loss.

    `profits_at` [B, K] is (price - cost) x quantity of the user's test purchases of the item at
    each position, 0 where the item is no target or nobody knows its price or cost.
    """
    return sums_at(profits_at, ks)


def gmv_capture(captured: np.ndarray, spent: np.ndarray) -> np.ndarray:
    """GMVCapture@k: share of all test money that the lists found, `sum_u GMV_u@k / sum_u spent_u`.

    A ratio of sums over users, not a mean of ratios: recall counted in money, where big spenders
    weigh what they spend. `captured` [B, C] is GMV@k, `spent` [B] the money of all the users'
    targets; gives [C], NaN where users returned as much as they bought, or more.
    """
    total = spent.sum()
    # all of it may be found, in another order, and then by no digit more than all
    return np.minimum(captured.sum(0) / (total if total > 0 else np.nan), 1.0)


def profit_capture(captured: np.ndarray, reachable: np.ndarray) -> np.ndarray:
    """ProfitCapture@k: `sum_u Profit_u@k / sum_u reachable_u`, where a user's reachable profit is
    the sum of `max(0, profit)` over the targets: what the best list brings, since a list need not
    show what is sold at a loss.

    A ratio of sums as GMVCapture, at most 1, and below 0 where lists find losses above all.
    `captured` [B, C] is Profit@k, `reachable` [B]; gives [C], NaN where no target brings a profit.
    """
    return gmv_capture(captured, reachable)


def price_ndcg(values_at: Tensor, target_values: Tensor, ks: Tensor) -> Tensor:
    """PriceNDCG@k: `sum_r value_r / log2(r + 1)`, over the same sum of the ideal list; [B, C].

    The gain of a position is the money of the target there; the ideal list holds the targets by
    falling money. More returned than bought is a gain of 0. NaN for a user whose targets are
    worth nothing. Source: Järvelin & Kekäläinen, TOIS 2002, with money as the graded gain.

    Args:
        values_at: money of the item at each position [B, K], 0 where it is no target.
        target_values: money of each target [B, L], filled up with 0, in any order.
        ks: cut-offs [C].
    """
    ideal, _ = target_values.clamp(min=0).sort(dim=1, descending=True)
    # 0 / 0 is the NaN of a user whose targets are worth nothing
    return _discounted(values_at.clamp(min=0), ks) / _discounted(ideal, ks)


def expected_revenue(probabilities: Tensor, prices: Tensor, ks: Tensor) -> Tensor:
    """ExpectedRevenue@k: `sum_r probability_r price_r`, the revenue a list should bring; [B, C].

    The expectation of a sum is the sum of expectations, however purchases depend on each other.
    Source: Pei et al., Value-aware Recommendation based on Reinforced Profit Maximization,
    WWW 2019. It is a forecast, and no better than the calibration of its probabilities.

    Args:
        probabilities: predicted probability that the user buys the item at each position
            [B, K].
        prices: price of the item at each position [B, K].
        ks: cut-offs [C].

    Raises DataError for a probability outside 0 to 1, naming its row and position.
    """
    wrong = ~((probabilities >= 0) & (probabilities <= 1))
    if wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        value = probabilities[row, column]
        raise DataError(
            f"probabilities: row {row}, position {column + 1} holds {value:g}; "
            "expected revenue needs probabilities of purchase from 0 to 1, not scores"
        )
    return sums_at(probabilities.double() * prices, ks)


def _discounted(gains: Tensor, ks: Tensor) -> Tensor:
    """DCG@k of `gains` [B, K]: [B, C]."""
    ranks = torch.arange(1, gains.shape[1] + 1, dtype=torch.float64, device=gains.device)
    return sums_at(gains / torch.log2(ranks + 1), ks)
