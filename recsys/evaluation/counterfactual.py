"""The value of a policy that never ran, from the log of one that did.

Each of n rows is an event of the log: an action shown in some context, the reward that followed,
and the probability with which the logging policy had chosen that action (its propensity). The
value of a target policy is the reward per event, had it chosen in the same contexts. Needed for
all: every action that the target policy may choose had some chance to be logged.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from feature_store.errors import DataError
from recsys.statistics.clusters import cluster_margin

_FEW = 30  # below it means are not normal yet


class FewEvents(UserWarning):
    """An estimate that a few events of many decide."""


@dataclass(frozen=True)
class Estimate:
    """The estimated value of a policy.

    Attributes:
        value: reward per event under the target policy.
        low, high: its confidence interval, by Student's t on sums over clusters. Where no reward
            is below 0, neither is its end, unless the value itself is.
        effective_sample_size: how many events of the target policy itself would tell as much,
            `(sum w) ** 2 / sum w ** 2`. Source: Kong, Technical Report 348, University of
            Chicago, 1992.
        rows: n.
        clip: the largest weight allowed; None: weights are used as they are.
        clipped: rows whose weight was larger, and was cut: the value is biased where there are any.
    """

    value: float
    low: float
    high: float
    effective_sample_size: float
    rows: int
    clip: float | None
    clipped: int


def inverse_propensity(
    rewards: np.ndarray,
    propensities: np.ndarray,
    target: np.ndarray,
    *,
    clusters: np.ndarray | None = None,
    clip: float | None = None,
    level: float = 0.95,
) -> Estimate:
    """IPS: `mean(w r)` with the weights `w = target / propensity`. Unbiased.

    Source: Horvitz & Thompson, JASA, 1952.

    Args:
        rewards: [n] of any unit.
        propensities: [n] probability of the logged action under the logging policy, in (0, 1].
        target: [n] probability of the logged action under the target policy, in [0, 1].
        clusters: [n] whose event each is, such as user ids: events of one cluster may depend on
            each other, and the interval allows for it. None: all are independent.
        clip: weights above are cut to it: less variance, for some bias.
        level: how often such intervals hold the true value, about.

    Warns:
        FewEvents: where a few events of many decide, and the interval cannot be trusted.

    Raises:
        DataError: naming the row, for values outside their range, NaN, or unequal lengths; when
            there are fewer than two clusters.
    """
    log = _Log.check(rewards, propensities, target, clusters, clip)
    return log.estimate(log.weights * log.rewards, np.ones(log.rows), level)


def self_normalised(
    rewards: np.ndarray,
    propensities: np.ndarray,
    target: np.ndarray,
    *,
    clusters: np.ndarray | None = None,
    clip: float | None = None,
    level: float = 0.95,
) -> Estimate:
    """SNIPS: `sum(w r) / sum(w)`. Stays within the range of the rewards; its bias fades with n.

    Its interval is that of a ratio, by linearisation. Source: Swaminathan & Joachims, NeurIPS,
    2015.

    Arguments and errors are those of `inverse_propensity`; DataError also when the target policy
    would never have chosen any logged action.
    """
    log = _Log.check(rewards, propensities, target, clusters, clip)
    if not log.weights.any():
        raise DataError(
            "target is 0 in every row: a policy that shares no action with the log cannot be valued"
        )
    return log.estimate(log.weights * log.rewards, log.weights, level)


def doubly_robust(
    rewards: np.ndarray,
    propensities: np.ndarray,
    target: np.ndarray,
    predicted: np.ndarray,
    expected: np.ndarray,
    *,
    clusters: np.ndarray | None = None,
    clip: float | None = None,
    level: float = 0.95,
) -> Estimate:
    """DR: `mean(expected + w (r - predicted))`. Unbiased whatever the model of rewards.

    The better that model, the smaller the variance; it must not have been fitted to these rows.
    Source: Dudik, Langford & Li, ICML, 2011.

    Args:
        predicted: [n] the model's reward of the logged action.
        expected: [n] the model's mean reward over the actions of the target policy, in the same
            context.

    The other arguments and the errors are those of `inverse_propensity`.
    """
    log = _Log.check(rewards, propensities, target, clusters, clip)
    predicted = _column("predicted", predicted, log.rows)
    expected = _column("expected", expected, log.rows)
    terms = expected + log.weights * (log.rewards - predicted)
    return log.estimate(terms, np.ones(log.rows), level)


@dataclass(frozen=True)
class _Log:
    """Checked rows: rewards, weights and numbers of clusters, each [n]."""

    rewards: np.ndarray
    weights: np.ndarray
    clusters: np.ndarray
    clip: float | None
    clipped: int

    @property
    def rows(self) -> int:
        return len(self.rewards)

    @classmethod
    def check(
        cls,
        rewards: np.ndarray,
        propensities: np.ndarray,
        target: np.ndarray,
        clusters: np.ndarray | None,
        clip: float | None,
    ) -> _Log:
        """Rows whose weights are cut at `clip`; errors as `inverse_propensity` says."""
        rows = len(rewards)
        rewards = _column("rewards", rewards, rows)
        propensities = _column("propensities", propensities, rows)
        target = _column("target", target, rows)
        _refuse(
            "propensities", propensities, (propensities <= 0) | (propensities > 1),
            "must be above 0 and at most 1",
        )  # fmt: skip
        _refuse("target", target, (target < 0) | (target > 1), "must lie between 0 and 1")
        if clip is not None and not clip > 0:
            raise DataError(f"clip is {clip}: it must be above 0, or None for no clipping")
        if clusters is None:
            numbers = np.arange(rows)
        elif len(clusters) != rows:
            raise DataError(f"clusters has {len(clusters)} values, rewards has {rows}")
        else:
            _, numbers = np.unique(clusters, return_inverse=True)
        if rows == 0 or numbers.max() == 0:
            what = "row" if clusters is None else "cluster"
            raise DataError(f"an interval needs at least two {what}s: got {min(rows, 1)}")
        weights = target / propensities
        clipped = 0 if clip is None else int((weights > clip).sum())
        weights = weights if clip is None else np.minimum(weights, clip)
        return cls(rewards, weights, numbers, clip, clipped)

    def estimate(self, terms: np.ndarray, sizes: np.ndarray, level: float) -> Estimate:
        """`sum terms / sum sizes`, both [n], with the interval of such a ratio.

        A ratio moves by `(terms - ratio * sizes) / sum sizes` with each row (the delta method);
        sums of these over clusters are independent. Source: Cochran, Sampling Techniques, 1977.
        """
        value = terms.sum() / sizes.sum()
        margin = cluster_margin((terms - value * sizes) / sizes.sum(), self.clusters, level)
        low = value - margin
        if value >= 0 and (self.rewards >= 0).all():
            low = max(low, 0.0)
        squares = (self.weights**2).sum()
        effective = float(self.weights.sum() ** 2 / squares) if squares else 0.0
        if effective < min(self.rows / 2, max(_FEW, self.rows / 100)):
            warnings.warn(
                f"the value rests on an effective sample of {effective:.1f} of {self.rows:,} "
                "events, and its interval cannot be trusted: clip the weights, or value a policy "
                "that is closer to the one that was logged",
                FewEvents,
                stacklevel=3,
            )
        return Estimate(
            value=float(value),
            low=float(low),
            high=float(value + margin),
            effective_sample_size=effective,
            rows=self.rows,
            clip=self.clip,
            clipped=self.clipped,
        )


def _column(name: str, values: np.ndarray, rows: int) -> np.ndarray:
    """The values as float64 [n]; finite, and as many as there are rewards."""
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise DataError(f"{name} has shape {column.shape}: it must hold one value a row")
    if len(column) != rows:
        raise DataError(f"{name} has {len(column)} values, rewards has {rows}")
    _refuse(name, column, ~np.isfinite(column), "must be a finite number")
    return column


def _refuse(name: str, values: np.ndarray, wrong: np.ndarray, rule: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        more = f" (and {int(wrong.sum()) - 1} more rows)" if wrong.sum() > 1 else ""
        raise DataError(f"{name}[{row}] is {values[row]}{more}: it {rule}")
