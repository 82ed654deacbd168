"""Calibration: curves that turn a model's logits into those of what happens.

n rows of a held-out sample: `logits` [n], and `labels` [n], 0 or 1. A curve rises everywhere, so
that what it is put on ranks as before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

FLATTEST, STEEPEST = 0.01, 30.0
"""Slopes of a curve: of less, different logits would be rounded to the same one in float32; of
more, the last digit of a logit would matter."""
_STEPS, _SMALL = 100, 1e-10  # of Newton's method, and the gradient that ends it


@dataclass(frozen=True)
class Curve:
    """A piecewise linear function with K knots: `values` [K] at `at` [K], which rise, and the
    `slopes` [K + 1] before, between and behind them."""

    at: tuple[float, ...]
    values: tuple[float, ...]
    slopes: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ValueError for lengths that do not go together, and for what does not rise."""
        if not len(self.at) == len(self.values) == len(self.slopes) - 1 > 0:
            raise ValueError("a curve has a value for each knot, and one slope more")
        if not (np.diff(self.at) > 0).all() or not min(self.slopes) > 0:
            raise ValueError("a curve rises")

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """The calibrated logits, float64, of any shape."""
        at, values, slopes = map(np.asarray, (self.at, self.values, self.slopes))
        piece = np.searchsorted(at, logits, side="right")
        knot = np.maximum(piece - 1, 0)
        calibrated: np.ndarray = values[knot] + slopes[piece] * (logits - at[knot])
        return calibrated


def temperature(logits: np.ndarray, labels: np.ndarray) -> Curve:
    """`logit / T + b` of the least log loss; `b` mends the rate of positives.

    Its targets are not 1 and 0 but (P + 1) / (P + 2) and 1 / (N + 2), of P positives and N
    negatives, so that it is finite where logits separate these. Source: Platt, Probabilistic
    Outputs for Support Vector Machines, 1999.
    """
    x, positive = logits.astype(np.float64), labels == 1
    positives, negatives = positive.sum(), (~positive).sum()
    targets = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    slope, bias = _logistic(x, targets, np.zeros_like(x))
    if slope < FLATTEST:  # it ranks no better than chance
        slope, bias = FLATTEST, _logistic(np.zeros_like(x), targets, FLATTEST * x)[1]
    return Curve((0.0,), (bias,), (slope, slope))


def isotonic(logits: np.ndarray, labels: np.ndarray) -> Curve:
    """Rates of positives that rise with the logit, by pooling adjacent violators, in between
    linear in logits.

    A knot is a pool's mean logit and its rate. The lowest and the highest logit count once more,
    with the other label, so that no pool is certain. Neighbours closer than the steepest slope
    allows are pooled, too; beyond the ends the curve is nearly flat. Source: Zadrozny & Elkan,
    KDD 2002.
    """
    from sklearn.isotonic import isotonic_regression  # slow to import

    x, of_row = np.unique(logits.astype(np.float64), return_inverse=True)
    rows = np.bincount(of_row).astype(np.float64)
    positives = np.bincount(of_row, weights=labels == 1)
    rows[0], positives[0] = rows[0] + 1, positives[0] + 1
    rows[-1] += 1
    rates = isotonic_regression(positives / rows, sample_weight=rows)
    starts = np.flatnonzero(np.concatenate([[True], np.diff(rates) > 0]))
    pools: list[np.ndarray] = []  # of each its rows, their positives and their sum of logits
    for pool in np.add.reduceat(np.stack([rows, positives, rows * x], axis=1), starts):
        whole = pool
        while pools and not _rises(pools[-1], whole):
            whole = pools.pop() + whole
        pools.append(whole)
    at, values = np.array([_knot(pool) for pool in pools]).T
    slopes = np.maximum(np.diff(values) / np.diff(at), FLATTEST)
    values = values[0] + np.concatenate([[0.0], np.cumsum(slopes * np.diff(at))])
    ends = [FLATTEST, *slopes, FLATTEST]
    return Curve(tuple(at.tolist()), tuple(values.tolist()), tuple(map(float, ends)))


FITS: dict[str, Callable[[np.ndarray, np.ndarray], Curve]] = {
    "temperature": temperature,
    "isotonic": isotonic,
}
"""What fits a curve, by its name in configs."""


def _knot(pool: np.ndarray) -> tuple[float, float]:
    rows, positives, total = pool
    return total / rows, float(np.log(positives / (rows - positives)))


def _rises(before: np.ndarray, after: np.ndarray) -> bool:
    (x, y), (later, higher) = _knot(before), _knot(after)
    return 0 < higher - y <= STEEPEST * (later - x)


def _logistic(x: np.ndarray, targets: np.ndarray, offset: np.ndarray) -> tuple[float, float]:
    """Slope and bias of the least log loss of `offset + slope * x + bias`: damped Newton steps."""

    def loss(weights: np.ndarray) -> float:
        z = offset + weights[0] * x + weights[1]
        return float(np.mean(np.logaddexp(0, z) - targets * z))

    weights, columns = np.array([0.0, 0.0]), np.stack([x, np.ones_like(x)])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(offset + weights @ columns, -500, 500)))
        gradient = columns @ (p - targets) / len(x)
        if np.abs(gradient).max() < _SMALL:
            break
        curvature = (columns * (p * (1 - p))) @ columns.T / len(x)
        step = np.linalg.solve(curvature + 1e-12 * np.eye(2), gradient)
        now = loss(weights)
        while loss(weights - step) > now and np.abs(step).max() > _SMALL:
            step = step / 2
        weights = weights - step
    return float(weights[0]), float(weights[1])
