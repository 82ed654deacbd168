"""What a list of another policy is worth: sums over its places, means over lists.

L lists, k places. `weights` [L, k] are those of `weights_of`, `users` [L] numbers from 0. Every
estimate is a mean over lists; its interval is by Student's t over users, whose lists may depend on
each other, with Hall's correction for skewness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.statistics.clusters import cluster_error, skewed_interval


@dataclass(frozen=True)
class Estimate:
    """A value per list with its interval; `error` is the standard error."""

    value: float
    low: float
    high: float
    error: float


def logged(rewards: np.ndarray, users: np.ndarray, level: float = 0.95) -> Estimate:
    """What the lists that were shown have brought."""
    return _mean(rewards.sum(axis=1), users, level, floor=_floor(rewards))


def inverse_propensity(
    rewards: np.ndarray, weights: np.ndarray, users: np.ndarray, level: float = 0.95
) -> Estimate:
    """IPS: `mean over lists of sum over places of w r`. Unbiased where every item of the target had
    a chance. Source: Horvitz & Thompson, JASA, 1952."""
    return _mean((weights * rewards).sum(axis=1), users, level, floor=_floor(rewards))


def self_normalised(
    rewards: np.ndarray, weights: np.ndarray, users: np.ndarray, level: float = 0.95
) -> Estimate:
    """SNIPS: the sum over places of `sum w r / sum w`: of items that had no chance it assumes that
    they bring what the others of their place do. Places at which nothing tells bring 0.

    Source: Swaminathan & Joachims, NeurIPS, 2015; the interval is by linearisation.
    """
    sums = weights.sum(axis=0)
    tells = sums > 0
    means = np.divide((weights * rewards).sum(axis=0), sums, out=np.zeros(len(sums)), where=tells)
    shares = np.divide(weights, sums, out=np.zeros(weights.shape), where=tells)
    influences = (shares * (rewards - means)).sum(axis=1)
    return _around(float(means.sum()), influences, users, level, _floor(rewards))


def doubly_robust(
    rewards: np.ndarray,
    weights: np.ndarray,
    of_shown: np.ndarray,
    of_target: np.ndarray,
    users: np.ndarray,
    level: float = 0.95,
) -> Estimate:
    """DR: `mean over lists of sum over places of q(target) + w (r - q(shown))`: the model q answers
    for items that had no chance, and the log corrects it where it tells.

    Source: Dudik, Langford & Li, ICML, 2011. As q is a sum over places, this is also the cascade's,
    of Kiyohara et al., WSDM, 2022.
    """
    terms = robust_terms(rewards, weights, of_shown, of_target)
    return _mean(terms, users, level, floor=_floor(rewards))


def robust_terms(
    rewards: np.ndarray, weights: np.ndarray, of_shown: np.ndarray, of_target: np.ndarray
) -> np.ndarray:
    """Of each list [L] what `doubly_robust` is the mean of."""
    return (of_target + weights * (rewards - of_shown)).sum(axis=1)


def difference(
    terms: np.ndarray, rewards: np.ndarray, users: np.ndarray, level: float = 0.95
) -> Estimate:
    """By how much the mean of `terms` [L] exceeds what was shown, list by list."""
    return _mean(terms - rewards.sum(axis=1), users, level)


def deviation(rewards: np.ndarray, users: np.ndarray) -> float:
    """Standard deviation of a user's part in the mean reward of a list: an A/B test divides users,
    and some have many lists."""
    terms = rewards.sum(axis=1)
    return cluster_error((terms - terms.mean()) / len(terms), users) * float(
        np.sqrt(users.max() + 1)
    )


def _mean(
    terms: np.ndarray, users: np.ndarray, level: float, floor: float | None = None
) -> Estimate:
    value = float(terms.mean())
    return _around(value, (terms - value) / len(terms), users, level, floor)


def _around(
    value: float, influences: np.ndarray, users: np.ndarray, level: float, floor: float | None
) -> Estimate:
    low, high = skewed_interval(value, influences, users, level)
    if floor is not None and value >= floor:
        low = max(low, floor)
    return Estimate(value, low, high, cluster_error(influences, users))


def _floor(rewards: np.ndarray) -> float | None:
    """No interval reaches below 0 where no reward does."""
    return 0.0 if (rewards >= 0).all() else None
