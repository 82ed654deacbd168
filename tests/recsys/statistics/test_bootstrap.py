"""Bootstrap intervals: they cover, repeat with the seed, and know what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from recsys.statistics import bootstrap
from recsys.statistics.bootstrap import (
    mean_intervals,
    mean_replicates,
    ratio_intervals,
    statistic_intervals,
)

RANDOM = np.random.default_rng(5)
VALUES = RANDOM.gamma(1.0, size=(300, 4))
HOLED = np.where(RANDOM.random((300, 4)) < 0.3, np.nan, VALUES)


def by_hand(values: np.ndarray, statistic: object, replicates: int, seed: int = 0) -> np.ndarray:
    """The same draws, one after the other."""
    random = np.random.default_rng(seed)
    users = len(values)
    draws = [values[random.integers(0, users, users)] for _ in range(replicates)]
    return np.stack([statistic(draw) for draw in draws])  # type: ignore[operator]


@pytest.mark.parametrize("values", [VALUES, HOLED], ids=["whole", "with gaps"])
def test_intervals_are_percentiles_of_means_over_resampled_users(values: np.ndarray) -> None:
    draws = by_hand(values, lambda draw: np.nanmean(draw, axis=0), 200, seed=3)
    low, high = mean_intervals(values, replicates=200, seed=3, level=0.9)
    np.testing.assert_allclose(low, np.quantile(draws, 0.05, axis=0), rtol=1e-12)
    np.testing.assert_allclose(high, np.quantile(draws, 0.95, axis=0), rtol=1e-12)


def test_ratios_leave_out_users_with_a_gap_in_either() -> None:
    above, below = HOLED, np.roll(HOLED, 1, axis=1)
    both = np.stack([above, below], axis=2)
    both[np.isnan(both).any(axis=2)] = np.nan

    def ratio(draw: np.ndarray) -> np.ndarray:
        sums = np.nansum(draw, axis=0)
        return sums[:, 0] / sums[:, 1]

    draws = by_hand(both, ratio, 200)
    low, high = ratio_intervals(above, below, replicates=200)
    np.testing.assert_allclose(low, np.quantile(draws, 0.025, axis=0), rtol=1e-12)
    np.testing.assert_allclose(high, np.quantile(draws, 0.975, axis=0), rtol=1e-12)


def test_intervals_of_means_agree_with_scipy() -> None:
    found = stats.bootstrap((VALUES[:, 0],), np.mean, n_resamples=4000, method="percentile", rng=1)
    low, high = mean_intervals(VALUES[:, :1], replicates=4000)
    width = found.confidence_interval.high - found.confidence_interval.low
    assert low[0] == pytest.approx(found.confidence_interval.low, abs=0.1 * width)
    assert high[0] == pytest.approx(found.confidence_interval.high, abs=0.1 * width)


def test_an_interval_does_not_depend_on_what_else_is_computed_or_on_the_size_of_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = mean_replicates(HOLED, replicates=50, seed=7)
    np.testing.assert_allclose(
        mean_replicates(HOLED[:, 2:3], replicates=50, seed=7), whole[:, 2:3], rtol=1e-12
    )
    assert not np.allclose(mean_replicates(HOLED, replicates=50, seed=8), whole)
    monkeypatch.setattr(bootstrap, "_CHUNK", 7 * len(HOLED))
    np.testing.assert_allclose(mean_replicates(HOLED, replicates=50, seed=7), whole, rtol=1e-12)


def test_intervals_cover_the_true_mean_and_the_true_ratio() -> None:
    """1000 samples of 100 users at once, in as many columns: a test by column."""
    random = np.random.default_rng(11)
    money = random.gamma(2.0, 1.0, size=(100, 1000))  # mean 2
    found = money * random.random(money.shape)  # half of it, on average
    for (low, high), truth in (
        (mean_intervals(money, replicates=400, level=0.9), 2.0),
        (ratio_intervals(found, money, replicates=400, level=0.9), 0.5),
    ):
        covered = ((low <= truth) & (truth <= high)).mean()
        assert 0.9 - 0.035 < covered < 0.9 + 0.03  # percentiles fall short a little at U = 100


def test_users_are_resampled_whole() -> None:
    """Two columns that are each other's complement stay so in every replicate."""
    hit = (RANDOM.random((200, 1)) < 0.3).astype(float)
    draws = mean_replicates(np.hstack([hit, 1 - hit]), replicates=100)
    np.testing.assert_allclose(draws.sum(axis=1), 1.0, rtol=1e-12)
    assert draws[:, 0].std() > 0.01


def test_figures_that_nobody_or_one_user_has() -> None:
    values = np.full((50, 3), np.nan)
    values[:, 1], values[4, 2] = 0.25, 0.5
    low, high = mean_intervals(values)
    assert np.isnan([low[0], high[0]]).all()
    assert low[1] == high[1] == 0.25
    assert low[2] == high[2] == 0.5  # the replicates without that user are left out
    low, high = ratio_intervals(np.ones((5, 1)), np.zeros((5, 1)))
    assert np.isnan([low, high]).all()
    assert np.isnan(mean_intervals(np.empty((0, 2)))).all()


def test_normal_intervals_of_a_mean_are_those_of_the_textbook() -> None:
    values = VALUES[:, 0]
    low, high = statistic_intervals(lambda of: values[of].mean(keepdims=True), 300, replicates=4000)
    margin = 1.96 * values.std() / np.sqrt(300)
    assert low[0] == pytest.approx(values.mean() - margin, abs=0.05 * margin)
    assert high[0] == pytest.approx(values.mean() + margin, abs=0.05 * margin)


def test_no_interval_reaches_beyond_what_the_statistic_can_be() -> None:
    def shares(users: np.ndarray) -> np.ndarray:
        return np.array([1.0, len(np.unique(users)) / 300])

    free, bound = statistic_intervals(shares, 300), statistic_intervals(shares, 300, within=(0, 1))
    assert free[1][1] > 1.01 and bound[1].tolist() == [1, 1]
    np.testing.assert_array_equal(bound[0], free[0])


def test_intervals_of_a_distinct_count_lie_around_it_where_percentiles_would_not() -> None:
    items = np.random.default_rng(2).integers(0, 400, 300)

    def distinct(users: np.ndarray) -> np.ndarray:
        return np.array([len(np.unique(items[users])) / 400])

    estimate = distinct(np.arange(300))
    low, high = statistic_intervals(distinct, 300)
    assert low[0] < estimate[0] < high[0]
    assert estimate[0] - low[0] == pytest.approx(high[0] - estimate[0])
    assert by_hand(np.arange(300), distinct, 200).max() < estimate[0]  # the reason
    np.testing.assert_array_equal(statistic_intervals(distinct, 300), (low, high))
