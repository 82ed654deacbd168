"""The gate: a new model passes where it surely falls by no more than is stated."""

from __future__ import annotations

import numpy as np
import pytest

from feature_store.errors import DataError
from recsys.daily.gate import decide
from recsys.daily.options import DailyConfig

NAN = float("nan")


def test_the_figures_are_those_of_users_with_both() -> None:
    fresh, served = np.array([1.0, 0.0, 0.5, NAN, 1.0]), np.array([0.0, 0.0, 1.0, 1.0, NAN])
    gate = decide("NDCG@10", fresh, served, DailyConfig(max_fall=0.3))
    assert (gate.users, gate.fresh, gate.served) == (3, 0.5, pytest.approx(1 / 3))
    assert gate.difference == pytest.approx(1 / 6) and gate.allowed == pytest.approx(0.1)
    # of 27 draws of three of +1, 0, -.5 those below -.1 in the mean: one 0 and two -.5 (3), two
    # 0 and one -.5 (3), three -.5 (1)
    assert gate.sure == pytest.approx(20 / 27, abs=0.02)
    assert gate.p == 1  # with any of the 8 signs the sum of 1, 0 and -.5 is as far from 0, or more


@pytest.mark.parametrize(
    ("fall", "confidence", "passed"),
    [
        (0.0, 0.95, True),  # nothing differs: surely no fall
        (0.02, 0.5, True),  # by less than is stated, as the figures go
        (0.02, 0.99, True),  # and over so many users that is sure
        (0.06, 0.5, False),  # by more than is stated
    ],
)
def test_a_fall_is_held_against_what_is_stated(
    fall: float, confidence: float, passed: bool
) -> None:
    random = np.random.default_rng(0)
    served = random.random(1000)
    noise = random.normal(0, 0.1, 1000) * (fall > 0)
    fresh = served * (1 - fall) + noise - noise.mean()
    options = DailyConfig(max_fall=0.05, confidence=confidence)
    gate = decide("NDCG@10", fresh, served, options)
    assert gate.passed is passed
    assert ("it falls by more" in gate.reason) is (not passed)


def test_few_users_do_not_show_that_it_is_no_worse() -> None:
    """The same mean difference of zero: of 2 users nobody can be sure, of 2,000 one can."""
    for users, passed in ((2, False), (2000, True)):
        served = np.tile([0.0, 1.0], users // 2)
        gate = decide("HR@10", served[::-1], served, DailyConfig(max_fall=0.1, confidence=0.9))
        assert gate.difference == 0 and gate.passed is passed
    few = served[:2]
    assert decide("HR@10", few[::-1], few, DailyConfig(confidence=0.5)).passed  # as figures go


def test_nobody_to_compare_is_named() -> None:
    with pytest.raises(DataError, match="no user has both figures"):
        decide("HR@1", np.array([NAN]), np.array([1.0]), DailyConfig())
