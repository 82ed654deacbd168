"""How much a shown item tells of another policy's list, by what its reward may depend on.

L lists, k places. The policy that is valued is sure of its list: `target` [L, k]. For a list of k
the chance of having shown all of it is as good as none, so something must be assumed of how rewards
come about; the less is assumed, the fewer lists tell anything.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from feature_store.errors import DataError
from recsys.evaluation.off_policy.logged_lists import LoggedLists

Assumption = Literal["place", "cascade", "list"]
"""Of the reward of an item in its list, besides user and moment:

place: it depends on the item and its place, not on the items around it. An item tells where it
    stands where the target has it, whatever else is shown. The item-position model of Li et al.,
    "Offline evaluation of ranking policies with click models", KDD 2018; "independent" elsewhere.
cascade: it depends on the items before it, too, as if people read from the top and nothing below
    mattered. Lists tell as far as they are the target's from the first place on. RIPS of McInerney
    et al., "Counterfactual evaluation of slate recommendations with sequential reward
    interactions", KDD 2020.
list: anything. Only lists that are the target's from end to end tell.
"""


def weights_of(lists: LoggedLists, target: np.ndarray, assumption: Assumption) -> np.ndarray:
    """Weights [L, k] of what was shown: 0 where it tells nothing, else one over its probability.

    Raises DataError where the log lacks the probabilities that an assumption needs.
    """
    alike = lists.shown == target
    if assumption == "place":
        return np.where(alike, 1 / lists.propensities, 0.0)
    if lists.given is None:
        raise DataError(
            f"the log has no column 'given_prefix', which the assumption {assumption!r} needs: "
            "assume 'place'"
        )
    along = np.cumprod(np.where(alike, 1 / lists.given, 0.0), axis=1)
    return along if assumption == "cascade" else np.broadcast_to(along[:, -1:], along.shape)
