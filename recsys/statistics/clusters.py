"""Margins of estimates whose rows come in clusters, such as all that one user did."""

from __future__ import annotations

import numpy as np
from scipy.stats import t


def cluster_error(influences: np.ndarray, clusters: np.ndarray) -> float:
    """The standard error of an estimate that each row moves by its `influences` [n].

    Rows of a cluster (numbers [n], from 0) may depend on each other: their sums are independent,
    and have mean 0. Source: Cochran, Sampling Techniques, 1977.
    """
    sums = np.bincount(clusters, influences)
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)))


def cluster_margin(influences: np.ndarray, clusters: np.ndarray, level: float) -> float:
    """Half the width of the interval of such an estimate, by Student's t."""
    free = int(clusters.max())
    return float(t.ppf((1 + level) / 2, free) * cluster_error(influences, clusters))


def skewed_interval(
    value: float, influences: np.ndarray, clusters: np.ndarray, level: float
) -> tuple[float, float]:
    """(low, high) of such an estimate where a few clusters decide, as of money: the side to which
    they lie far out is the longer one.

    A cubic transformation takes the skewness out of the estimate's distribution, and its inverse
    brings the quantiles of Student's t back. Without skewness these are `value -+ cluster_margin`.
    Source: Hall, "On the removal of skewness by transformation", JRSS B, 1992.
    """
    sums = np.bincount(clusters, influences)
    root, error = len(sums) ** 0.5, cluster_error(influences, clusters)
    if error == 0:
        return value, value
    skewness = (sums**3).mean() / (sums**2).mean() ** 1.5
    ends = t.ppf([(1 + level) / 2, (1 - level) / 2], len(sums) - 1)
    if abs(skewness) > 1e-6:
        slope = skewness / root
        ends = 3 / slope * (np.cbrt(1 + slope * (ends - slope / 6)) - 1)
    return float(value - error * ends[0]), float(value - error * ends[1])
