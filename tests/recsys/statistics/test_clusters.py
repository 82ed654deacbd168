"""Errors of clustered rows, and intervals of skewed ones, by hand and by how often they hold."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.statistics.clusters import cluster_error, cluster_margin, skewed_interval


def test_rows_of_a_cluster_are_summed() -> None:
    """Sums 3, -1 and -2: sqrt(14 * 3 / 2)."""
    influences, clusters = np.array([1.0, 2.0, -1.0, -2.0]), np.array([0, 0, 1, 2])
    assert cluster_error(influences, clusters) == pytest.approx(np.sqrt(21))
    assert cluster_margin(influences, clusters, 0.95) == pytest.approx(4.302653 * np.sqrt(21))


def test_without_skewness_both_ends_are_as_far() -> None:
    influences, rows = np.array([-2.0, -1.0, 1.0, 2.0]), np.arange(4)
    margin = cluster_margin(influences, rows, 0.9)
    assert skewed_interval(5.0, influences, rows, 0.9) == pytest.approx((5 - margin, 5 + margin))
    assert skewed_interval(5.0, np.zeros(4), rows, 0.9) == (5.0, 5.0)


def test_a_skewed_interval_by_hand() -> None:
    """Sums -1, -1, -1 and 3: mean square 3, mean cube 6, skewness g = 6 / 3 ** 1.5, error
    sqrt(12 * 4 / 3) = 4. The ends, in errors, solve u + g u^2 / 6 + g^2 u^3 / 108 + g / 12 = +-t,
    where t = 3.18245: they are 2.11174 and -10.19983."""
    g = 6 / 3**1.5
    for u, t in ((2.11174, 3.18245), (-10.19983, -3.18245)):
        assert u + g * u**2 / 6 + g**2 * u**3 / 108 + g / 12 == pytest.approx(t, abs=1e-4)
    ends = skewed_interval(0.0, np.array([-1.0, -1.0, -1.0, 3.0]), np.arange(4), 0.95)
    assert ends == pytest.approx((-4 * 2.11174, 4 * 10.19983), rel=1e-5)


def test_means_of_skewed_values_are_held_more_often() -> None:
    """Of 1,500 samples of 40 values whose logarithm is normal; 95 % is what is asked for."""
    random = np.random.default_rng(0)
    rows, true = np.arange(40), np.exp(0.5)
    plain = skewed = 0
    for _ in range(1500):
        values = np.exp(random.standard_normal(40))
        influences = (values - values.mean()) / 40
        plain += abs(values.mean() - true) <= cluster_margin(influences, rows, 0.95)
        low, high = skewed_interval(values.mean(), influences, rows, 0.95)
        skewed += low <= true <= high
    assert plain / 1500 < 0.91 < 0.92 < skewed / 1500
