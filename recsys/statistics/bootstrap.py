"""Bootstrap intervals of figures over users.

U users, M figures, R replicates. A replicate draws U users with replacement: whole users, since
what one user does is not independent. The draws follow from `seed`, `replicates` and U alone, so
that a figure has the same interval however many others are computed beside it, and replicates of
two runs over the same users in the same order are paired. Source of all: Efron & Tibshirani, An
Introduction to the Bootstrap, 1993.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.stats import norm

_CHUNK = 1 << 22  # draws held at a time: 32 MiB of weights


def mean_intervals(
    values: np.ndarray, *, replicates: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals of means over users.

    Args:
        values: [U, M]; NaN where a user has no such value and is left out of that mean.
        level: how often such intervals hold the mean of the population, about.

    Returns:
        low [M] and high [M]; NaN for a figure that no user has.
    """
    return percentiles(mean_replicates(values, replicates=replicates, seed=seed), level)


def ratio_intervals(
    numerators: np.ndarray,
    denominators: np.ndarray,
    *,
    replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile intervals of `sum numerators / sum denominators`, such as GMV capture.

    Args:
        numerators, denominators: [U, M]; a user with NaN in either is left out of both sums.

    Returns:
        low [M] and high [M]; NaN where the denominators sum to 0.
    """
    draws = ratio_replicates(numerators, denominators, replicates=replicates, seed=seed)
    return percentiles(draws, level)


def statistic_intervals(
    statistic: Callable[[np.ndarray], np.ndarray],
    users: int,
    *,
    replicates: int = 200,
    seed: int = 0,
    level: float = 0.95,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[np.ndarray, np.ndarray]:
    """Normal intervals `estimate +- z * standard error` of any statistic over users.

    For counts such as coverage and Gini. Percentiles would be wrong for them: a replicate holds
    only about 63 % of the users, each some times over, so it recommends fewer distinct items than
    the sample did, and most of its percentiles lie below the estimate itself. The spread of the
    replicates is sound all the same, so it is laid around the estimate.

    Args:
        statistic: from indices of users [U], some of them repeated, to figures [M].
        users: U.
        within: the smallest and the largest value that the statistic can have: no interval
            reaches beyond.

    Returns:
        low [M] and high [M]; NaN where the statistic of the whole or of a replicate is.
    """
    estimate = np.asarray(statistic(np.arange(users)), dtype=np.float64)
    random = np.random.default_rng(seed)
    draws = np.stack([statistic(random.integers(0, users, users)) for _ in range(replicates)])
    return around(estimate, draws, level, within)


def around(
    estimate: np.ndarray,
    replicates: np.ndarray,
    level: float = 0.95,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[np.ndarray, np.ndarray]:
    """Normal intervals of `estimate` [M] by the spread of its `replicates` [R, M]: low and high,
    neither beyond what the statistic can be."""
    margin = norm.ppf((1 + level) / 2) * replicates.std(axis=0, ddof=1)
    low, high = np.clip([estimate - margin, estimate + margin], *within)
    return low, high


def mean_replicates(values: np.ndarray, *, replicates: int = 1000, seed: int = 0) -> np.ndarray:
    """Means [R, M] of `values` [U, M] over resampled users, NaN left out."""
    missing = np.isnan(values)
    gaps = np.flatnonzero(missing.any(axis=0))  # the rest needs no count of its own
    sums = _sums(np.where(missing, 0.0, values), replicates, seed)
    counts = np.full(sums.shape, float(len(values)))
    if len(gaps):
        counts[:, gaps] = _sums(~missing[:, gaps], replicates, seed)
    return _quotients(sums, counts)


def ratio_replicates(
    numerators: np.ndarray, denominators: np.ndarray, *, replicates: int = 1000, seed: int = 0
) -> np.ndarray:
    """Ratios of sums [R, M] of `numerators` and `denominators` [U, M] over resampled users."""
    missing = np.isnan(numerators) | np.isnan(denominators)
    both = np.hstack([np.where(missing, 0.0, each) for each in (numerators, denominators)])
    return _quotients(*np.split(_sums(both, replicates, seed), 2, axis=1))


def percentiles(replicates: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The middle `level` of `replicates` [R, M]: low [M] and high [M].

    Replicates that are NaN, having drawn none of the few users with a value, are left out.
    """
    ends = np.full((2, replicates.shape[1]), np.nan)
    drawn = ~np.isnan(replicates).all(axis=0)
    if drawn.any():
        tail = (1 - level) / 2
        ends[:, drawn] = np.nanquantile(replicates[:, drawn], [tail, 1 - tail], axis=0)
    return ends[0], ends[1]


def _sums(values: np.ndarray, replicates: int, seed: int) -> np.ndarray:
    """Sums [R, M] of `values` [U, M] over resampled users, as a product with their counts."""
    values = np.asarray(values, dtype=np.float64)
    out = np.empty((replicates, values.shape[1]))
    for first, counts in _counts(len(values), replicates, seed):
        np.matmul(counts, values, out=out[first : first + len(counts)])
    return out


def _counts(users: int, replicates: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """How often each user was drawn [n, U], n replicates at a time, from the first of them on."""
    random = np.random.default_rng(seed)
    size = min(replicates, max(1, _CHUNK // max(users, 1)))
    counts = np.empty((size, users))
    for first in range(0, replicates, size):
        chunk = counts[: replicates - first]
        for row in chunk:
            row[:] = np.bincount(random.integers(0, max(users, 1), users), minlength=users)
        yield first, chunk


def _quotients(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
