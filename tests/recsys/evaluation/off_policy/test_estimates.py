"""Values of lists by hand: two places, three lists of two users."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.off_policy.estimates import (
    deviation,
    difference,
    doubly_robust,
    inverse_propensity,
    logged,
    robust_terms,
    self_normalised,
)
from recsys.statistics.power import users_per_arm

REWARDS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
WEIGHTS = np.array([[2.0, 0.0], [1.0, 4.0], [0.0, 2.0]])
USERS = np.array([0, 0, 1])


def test_what_was_shown_has_brought() -> None:
    """Sums 1, 1, 2 of users 0, 0 and 1: the mean is 4/3, and the users' parts are -2/9 and 2/9 (of
    the mean over lists), so that the error is sqrt(2 * (4/81 + 4/81)) = 4/9."""
    estimate = logged(REWARDS, USERS)
    assert estimate.value == pytest.approx(4 / 3)
    assert estimate.error == pytest.approx(4 / 9)
    assert estimate.high - estimate.value == pytest.approx(12.7062 * 4 / 9, rel=1e-5)  # t, 1 degree
    assert estimate.low == 0  # no reward is below it


def test_ips_snips_and_dr() -> None:
    """IPS (2 + 4 + 2) / 3. SNIPS: place 1 (2 * 1 + 1 * 0) / 3, place 2 (4 + 2) / 6. DR: expected
    .5 + .25 each, and corrections 2 (1 - .5), 1 (0 - .5) + 4 (1 - .25), 2 (1 - .25)."""
    assert inverse_propensity(REWARDS, WEIGHTS, USERS).value == pytest.approx(8 / 3)
    assert self_normalised(REWARDS, WEIGHTS, USERS).value == pytest.approx(2 / 3 + 1)
    model = np.tile([0.5, 0.25], (3, 1))
    robust = doubly_robust(REWARDS, WEIGHTS, model, model, USERS)
    assert robust.value == pytest.approx(0.75 + (1.0 + 2.5 + 1.5) / 3)
    terms = robust_terms(REWARDS, WEIGHTS, model, model)
    assert terms == pytest.approx([1.75, 3.25, 2.25])
    differs = difference(terms, REWARDS, USERS)
    assert differs.value == pytest.approx((0.75 + 2.25 + 0.25) / 3)


def test_the_interval_of_snips_is_that_of_its_ratios() -> None:
    """Influences of the first place: w (r - 2/3) / 3 is 2/9, -2/9 and 0; the second has none, as
    every reward that counts is 1. Sums of users are 0 and 0."""
    assert self_normalised(REWARDS, WEIGHTS, USERS).error == pytest.approx(0, abs=1e-12)
    alone = self_normalised(REWARDS, WEIGHTS, np.arange(3))
    assert alone.error == pytest.approx(np.sqrt(3 / 2 * 2 * (2 / 9) ** 2))


def test_debts_have_no_floor() -> None:
    assert logged(-REWARDS, USERS).low < -4 / 3


def test_users_of_a_trial() -> None:
    """For an effect of half a standard deviation 62.8 users an arm (statsmodels'
    NormalIndPower says 62.79, its TTestIndPower 63.77), at .2 392.4."""
    assert users_per_arm(0.5, 1.0) == 63
    assert users_per_arm(-0.2, 1.0) == 393
    assert users_per_arm(0.02, 0.1) == 393
    assert users_per_arm(0.5, 1.0, level=0.01, power=0.9) == 120  # 2 (2.5758 + 1.2816)^2 / .25
    assert users_per_arm(0.0, 1.0) is None
    assert users_per_arm(100.0, 1.0) == 2


def test_the_deviation_of_users_is_that_of_their_means_where_each_has_one_list() -> None:
    rewards = np.array([[1.0], [4.0], [4.0], [7.0]])
    assert deviation(rewards, np.arange(4)) == pytest.approx(np.std([1, 4, 4, 7], ddof=1))
