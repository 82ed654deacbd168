"""The value of another policy's lists, with all that one must know to believe it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from feature_store.errors import DataError
from recsys.evaluation.off_policy import estimates
from recsys.evaluation.off_policy.estimates import Estimate
from recsys.evaluation.off_policy.logged_lists import LoggedLists
from recsys.evaluation.off_policy.reward_model import cross_fitted
from recsys.evaluation.off_policy.support import Support
from recsys.evaluation.off_policy.weights import Assumption, weights_of
from recsys.statistics.power import users_per_arm

LOGGED, IPS, SNIPS, DR = "logged", "IPS", "SNIPS", "DR"
DIFFERENCE = "DR - logged"


@dataclass(frozen=True)
class PolicyValue:
    """What a list of the policy is worth, by reward and estimator.

    Attributes:
        lists, users: that the log shows.
        estimates: by reward, then by `LOGGED` (what the log itself has brought), `IPS`, `SNIPS`,
            `DR` and `DIFFERENCE`.
        users_per_arm: by reward, users that each arm of an A/B test needs to see the difference, if
            they have as many lists as the log's; None where there is none.
        warnings: in sentences.
    """

    lists: int
    users: int
    assumption: Assumption
    clip: float | None
    estimates: dict[str, dict[str, Estimate]]
    users_per_arm: dict[str, int | None]
    support: Support
    warnings: tuple[str, ...]

    def table(self) -> pa.Table:
        """A row a reward and estimator."""
        rows = [
            {"reward": reward, "estimator": name, **vars(estimate)}
            for reward, by_name in self.estimates.items()
            for name, estimate in by_name.items()
        ]
        return pa.Table.from_pylist(rows)


def value_of(
    lists: LoggedLists,
    target: np.ndarray,
    *,
    assumption: Assumption = "place",
    clip: float | None = None,
    level: float = 0.95,
) -> PolicyValue:
    """Value the policy that would have shown `target`, [L, k] rows of `lists.items`; -1 where a
    list ends, and one behind the last row for items that the log lacks.

    Args:
        assumption: of rewards in lists: see `weights`.
        clip: weights above are cut to it: less variance, for some bias towards the logged lists.
        level: how often such intervals hold the true value, about.

    Raises:
        DataError: a log of fewer than two users, a clip that is none, or a target that shares
            nothing with the log.
    """
    _, users = np.unique(lists.of_user, return_inverse=True)
    if users.max() < 1:
        raise DataError("an interval needs at least two users: the log has one")
    if clip is not None and not clip > 0:
        raise DataError(f"clip is {clip}: it must be above 0, or left out")
    weights = weights_of(lists, target, assumption)
    support = Support.of(lists, target, weights, clip)
    if not weights[target >= 0].any():
        raise DataError(
            "the log never shows an item where the policy would have had it: it says nothing about "
            "that policy"
        )
    weights = weights if clip is None else np.minimum(weights, clip)
    by_reward: dict[str, dict[str, Estimate]] = {}
    needed: dict[str, int | None] = {}
    for name, rewards in lists.rewards.items():
        models = cross_fitted(lists, rewards, target)
        terms = estimates.robust_terms(rewards, weights, *models)
        differs = estimates.difference(terms, rewards, users, level)
        by_reward[name] = {
            LOGGED: estimates.logged(rewards, users, level),
            IPS: estimates.inverse_propensity(rewards, weights, users, level),
            SNIPS: estimates.self_normalised(rewards, weights, users, level),
            DR: estimates.doubly_robust(rewards, weights, *models, users, level),
            DIFFERENCE: differs,
        }
        needed[name] = users_per_arm(differs.value, estimates.deviation(rewards, users))
    return PolicyValue(
        lists=len(lists),
        users=int(users.max()) + 1,
        assumption=assumption,
        clip=clip,
        estimates=by_reward,
        users_per_arm=needed,
        support=support,
        warnings=(*support.warnings(len(lists)), *_of_log(lists)),
    )


def _of_log(lists: LoggedLists) -> list[str]:
    told = []
    if lists.elsewhere:
        told.append(
            f"{lists.elsewhere:,} clicks and purchases name no list that has shown their item: "
            "they count for none"
        )
    if lists.unpriced:
        told.append(f"{lists.unpriced:,} purchases have no price: they bring nothing")
    return told
