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
