"""Arms of an experiment: which users get which bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from feature_store.errors import ConfigError
from feature_store.ids import plain
from recsys.policy.noise import seeds_of, uniform


def arm_of(user_ids: Any, arms: Mapping[str, float], salt: str) -> np.ndarray:
    """The name of the arm of every user, texts [n].

    It follows from the raw id, the salt and the shares alone, so that every server, today or
    tomorrow, says the same. Arms divide [0, 1) in their order, and a user has a place there: where
    shares change, only users between the old bounds and the new ones change arms. Another salt
    gives every user another place, for an experiment that is independent of this one.

    Args:
        user_ids: raw ids of one type; 7 and "7" are the same user. A null, somebody without an id,
            is in the first arm.
        arms: their shares of users by name, which sum to 1.

    Raises:
        ConfigError: shares that are none.
    """
    names, shares = check_arms(arms)
    array = user_ids if isinstance(user_ids, pa.Array | pa.ChunkedArray) else pa.array(user_ids)
    ids = plain(array)
    place = uniform(seeds_of(ids, salt), 1)[:, 0]
    arm = np.minimum(np.searchsorted(np.cumsum(shares), place, side="right"), len(names) - 1)
    arm[np.asarray(ids.is_null())] = 0
    return names[arm]


def check_arms(arms: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Names and shares of arms. Raises ConfigError for shares that are none."""
    if not arms:
        raise ConfigError("an experiment needs at least one arm")
    for name, share in arms.items():
        if not 0 <= share <= 1:  # nan included
            raise ConfigError(f"arm {name!r} has the share {share}: it must lie between 0 and 1")
    total = math.fsum(arms.values())
    if abs(total - 1) > 1e-9:
        told = ", ".join(f"{name} {share:g}" for name, share in arms.items())
        raise ConfigError(f"the shares of the arms sum to {total:g}, not to 1: {told}")
    return np.array(list(arms)), np.array(list(arms.values()), dtype=np.float64)
