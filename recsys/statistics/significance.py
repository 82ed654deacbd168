"""Paired tests of two runs over the same users, and their correction for many comparisons.

U users, M figures. All p-values are two-sided, and `(1 + extreme) / (1 + draws)`: what was
observed counts as one of the draws, without which a test by simulation would exceed its level
(Davison & Hinkley, Bootstrap Methods and their Application, 1997, chapter 4).
"""

from __future__ import annotations

import numpy as np

from recsys.statistics.bootstrap import mean_replicates

_CHUNK = 1 << 22  # signs held at a time: 32 MiB of float64
_TIE = 1e-9  # of the largest sum possible: sums that differ by rounding alone are equal


def randomisation_test(
    a: np.ndarray, b: np.ndarray, *, permutations: int = 10_000, seed: int = 0
) -> np.ndarray:
    """p-values of `mean a != mean b`, exact for any distribution of the values.

    If the runs were equally good, it would be chance which of a user's two values came from which
    run: the observed difference is held against those with the values of each user swapped, or
    not, at random. Source: Fisher, The Design of Experiments, 1935; for retrieval Smucker, Allan &
    Carterette, CIKM 2007.

    Args:
        a, b: [U, M], row by row the same users; a user with NaN in either is left out of the
            figure.

    Returns:
        p-values [M]: 1 where all values are equal, NaN where no user has both.
    """
    difference = _differences(a, b)
    tested = ~np.isnan(difference).all(axis=0)
    difference = np.nan_to_num(difference)
    users = len(difference)
    random = np.random.default_rng(seed)
    total, tie = difference.sum(axis=0), _TIE * np.abs(difference).sum(axis=0)
    extreme = np.zeros(difference.shape[1])
    width, size = -(-users // 8), max(1, _CHUNK // max(users, 1))  # bytes of a draw, draws at once
    for first in range(0, permutations, size):
        rows = min(size, permutations - first)
        packed = np.frombuffer(random.bytes(rows * width), dtype=np.uint8).reshape(rows, width)
        swapped = np.unpackbits(packed, axis=1, count=users).astype(np.float64)
        sums = total - 2 * (swapped @ difference)  # turned round where swapped
        extreme += (np.abs(sums) >= np.abs(total) - tie).sum(axis=0)
    return np.where(tested, (1 + extreme) / (1 + permutations), np.nan)


def bootstrap_test(
    a: np.ndarray, b: np.ndarray, *, replicates: int = 10_000, seed: int = 0
) -> np.ndarray:
    """p-values of `mean a != mean b` by resampling users.

    The differences are moved so that their mean is 0, as it would be if the runs were equally
    good; the observed mean is held against the means of resampled users. Right for many users
    only; it asks whether the means differ, where the randomisation test asks whether the runs do.
    Source: Efron & Tibshirani 1993, algorithm 16.2, without its division by the standard error.

    Args:
        a, b: [U, M], row by row the same users; a user with NaN in either is left out of the
            figure.

    Returns:
        p-values [M]: 1 where all values are equal, NaN where no user has both.
    """
    difference = _differences(a, b)
    users = np.maximum((~np.isnan(difference)).sum(axis=0), 1)
    observed = np.nansum(difference, axis=0) / users
    tie = _TIE * np.nansum(np.abs(difference), axis=0) / users
    draws = mean_replicates(difference, replicates=replicates, seed=seed)
    tested = ~np.isnan(difference).all(axis=0)
    return np.where(tested, replicates_test(observed, draws, tie), np.nan)


def replicates_test(
    difference: np.ndarray, draws: np.ndarray, tie: np.ndarray | float = _TIE
) -> np.ndarray:
    """p-values of differences [M] of any figures, such as AUC, by `draws` [R, M] of them over
    resampled users, as `bootstrap_test` has it: moved so that they lie around 0.

    Draws that are NaN, having no positive say, are left out; NaN where all are. Distances that
    differ by no more than `tie` are equal.
    """
    extreme = (np.abs(draws - difference) >= np.abs(difference) - tie).sum(axis=0)
    drawn = (~np.isnan(draws)).sum(axis=0)
    tested = (drawn > 0) & ~np.isnan(difference)
    return np.where(tested, (1 + extreme) / (1 + drawn), np.nan)


def holm(p: np.ndarray) -> np.ndarray:
    """p-values adjusted so that the chance of even one false finding among all keeps its level.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none becomes smaller than
    the one before it, nor larger than 1. Source: Holm, Scandinavian Journal of Statistics, 1979.

    Args:
        p: p-values of any shape; NaN, a test that was not made, does not count and stays NaN.
    """
    p = np.asarray(p, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    made = p[~np.isnan(p)]
    order = np.argsort(made, kind="stable")
    stepped = np.maximum.accumulate(made[order] * np.arange(len(made), 0, -1))
    back = np.empty_like(made)
    back[order] = np.minimum(stepped, 1.0)
    adjusted[~np.isnan(p)] = back
    return adjusted


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - b [U, M], NaN where either is."""
    if np.shape(a) != np.shape(b):
        raise ValueError(f"paired values must have equal shapes: got {np.shape(a)}, {np.shape(b)}")
    return np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
