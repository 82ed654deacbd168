"""A simple model of rewards: what an item brings at a place, on average.

L lists, k places, I items. `reward = rate of the place x lift of the item x lift of its rank`: the
rank is the item's in the list of the policy that is valued, or that it is not there. If that policy
knows what its users like, they react more to what it ranks high, wherever that was shown. A lift is
`(rewards + s) / (rewards expected by all else + s)`: 1 for what was never shown, and near it for
what was hardly shown. That is the posterior mean of a Poisson rate with a Gamma prior of mean 1.
Source: Clayton & Kaldor, Biometrics, 1987.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.evaluation.off_policy.logged_lists import LoggedLists

_ROUNDS = 8  # the factors are fitted in turn
_PRIOR = 20  # exposures' worth of it
_FOLDS = 5


@dataclass(frozen=True)
class RewardModel:
    """Rates of places [k], lifts of items [I + 1], the last of all those that the log lacks, and of
    ranks [k + 1], the last of items that the policy's list does not hold."""

    rates: np.ndarray
    lifts: np.ndarray
    of_ranks: np.ndarray

    @classmethod
    def fit(
        cls, shown: np.ndarray, ranks: np.ndarray, rewards: np.ndarray, items: int
    ) -> RewardModel:
        """From rewards [n, k] of what was shown [n, k], rows of `items` or -1, and its `ranks`
        [n, k]."""
        row, place = np.nonzero(shown >= 0)
        item, rank, reward = (values[row, place] for values in (shown, ranks, rewards))
        k = shown.shape[1]
        rates, lifts, of_ranks = np.zeros(k), np.ones(items + 1), np.ones(k + 1)
        prior = _PRIOR * (reward.mean() if len(reward) else 0.0)
        for _ in range(_ROUNDS if prior > 0 else 0):
            seen = np.bincount(place, lifts[item] * of_ranks[rank], k)
            brought = np.bincount(place, reward, k)
            rates = np.divide(brought, seen, out=np.zeros(k), where=seen > 0)
            lifts = _lifts(item, reward, rates[place] * of_ranks[rank], items + 1, prior)
            of_ranks = _lifts(rank, reward, rates[place] * lifts[item], k + 1, prior)
        return cls(rates, lifts, of_ranks)

    def predict(self, items: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """Rewards [n, k] of items [n, k] of such ranks at their places; 0 for -1."""
        expected = self.rates * self.lifts[items] * self.of_ranks[ranks]
        return np.where(items >= 0, expected, 0.0)


def _lifts(
    groups: np.ndarray, rewards: np.ndarray, expected: np.ndarray, count: int, prior: float
) -> np.ndarray:
    brought = np.bincount(groups, rewards, count)
    return (brought + prior) / (np.bincount(groups, expected, count) + prior)


def ranks_in(target: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The place [n, k], from 0, at which each of `items` [n, k] stands in its `target` [n, k]; k
    where it does not."""
    equal = items[:, :, None] == target[:, None, :]
    return np.where(equal.any(axis=2), equal.argmax(axis=2), target.shape[1])


def cross_fitted(
    lists: LoggedLists, rewards: np.ndarray, target: np.ndarray, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """What models say of the items shown and of the target's, both [L, k]: of every user one that
    was fitted to other users alone, as doubly robust estimates need it.

    Source: Chernozhukov et al., "Double/debiased machine learning", Econometrics Journal, 2018.
    """
    fold = np.random.default_rng(seed).permutation(len(lists.users))[lists.of_user] % _FOLDS
    ranks = ranks_in(target, lists.shown)
    own_ranks = np.broadcast_to(np.arange(target.shape[1]), target.shape)
    of_shown, of_target = np.zeros(rewards.shape), np.zeros(rewards.shape)
    for number in range(_FOLDS):
        own = fold == number
        rest = lists.shown[~own], ranks[~own], rewards[~own]
        model = RewardModel.fit(*rest, len(lists.items))
        of_shown[own] = model.predict(lists.shown[own], ranks[own])
        of_target[own] = model.predict(target[own], own_ranks[own])
    return of_shown, of_target
