"""The loop closed: logs of one policy on the synthetic marketplace, and what they say of another.

A small version of `python -m benchmarks.off_policy`, with the same seeds every time.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.off_policy import FULL, THIN, K, Market, coverage

LOGS, USERS = 30, 300


@pytest.fixture(scope="module")
def market() -> Market:
    return Market()


def test_intervals_hold_the_true_value_of_the_policy_that_never_ran(market: Market) -> None:
    """Of 30 logs, 95 % intervals miss one or two; that they miss more than four has a chance of
    one in sixty."""
    figures = coverage(market, FULL, USERS, LOGS)
    for name in ("ips", "snips", "dr", "difference"):
        assert figures[f"coverage_{name}"] >= 26 / 30, name
    for name in ("ips_gmv", "snips_gmv", "dr_gmv"):  # of money, which few events decide
        assert figures[f"coverage_{name}"] >= 24 / 30, name
    for name in ("ips", "dr", "ips_gmv", "dr_gmv"):
        assert abs(figures[f"bias_{name}"]) < 3.5, name
    assert figures["width_dr"] < 0.9 * figures["width_ips"], "the model is worth something"


def test_the_other_policy_is_worth_more_than_what_is_logged(market: Market) -> None:
    """Without which there would be nothing to tell apart."""
    lists, target = market.log(FULL, USERS, 0)
    true = market.true_values()["clicks"]
    assert true > 1.3 * lists.rewards["clicks"].sum(axis=1).mean()
    assert target.shape == (len(lists), K) and (target < len(lists.items)).all()


def test_where_much_had_no_chance_every_log_warns(market: Market) -> None:
    """The share without a chance is that of the target's items that the pool does not hold, or that
    stand where the first place is kept."""
    assert coverage(market, THIN, USERS, 4)["warned"] == 1
    order = np.argsort(-market.scores[0], axis=1)
    pool = [order[:, :1], *[order[:, 1 : THIN.pool]] * (K - 1)]
    chances = [(market.target[:, [place]] == pool[place]).any(axis=1).mean() for place in range(K)]
    support = market.valued(THIN, 2000, 0).support
    assert support.unsupported == pytest.approx(1 - np.mean(chances), abs=0.05)
    kept = (market.target[:, 0] != order[:, 0]).mean() / K
    assert support.surely_not == pytest.approx(kept, abs=0.02)
