"""Arms: the same for the same user, in their shares, and only those between bounds ever move."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from feature_store.errors import ConfigError
from recsys.policy.arms import arm_of

USERS = pa.array(np.arange(40_000))
HALVES = {"a": 0.5, "b": 0.5}


def test_arms_have_their_shares() -> None:
    """Within 4 standard errors, also of the users of a first arm alone under another salt."""
    shares = {"a": 0.2, "b": 0.5, "c": 0.3}
    arms = arm_of(USERS, shares, "spring")
    again = arm_of(USERS, shares, "summer")
    for name, share in shares.items():
        assert abs((arms == name).mean() - share) < 4 * np.sqrt(share * (1 - share) / 40_000)
        within = (again[arms == "a"] == name).mean()
        assert abs(within - share) < 4 * np.sqrt(share * (1 - share) / 8_000)


def test_a_user_has_one_arm_whatever_the_type_of_the_id() -> None:
    texts = USERS.cast(pa.string())
    assert (arm_of(texts, HALVES, "s") == arm_of(USERS, HALVES, "s")).all()
    assert arm_of([7, 8, 9], HALVES, "s").tolist() == arm_of(USERS, HALVES, "s")[7:10].tolist()
    # what servers of other versions must say, too
    assert "".join(arm_of(np.arange(12), HALVES, "s")) == "bababbababba"


def test_only_users_between_the_old_bound_and_the_new_one_move() -> None:
    before, after = arm_of(USERS, HALVES, "s"), arm_of(USERS, {"a": 0.6, "b": 0.4}, "s")
    moved = before != after
    assert set(before[moved]) == {"b"} and abs(moved.mean() - 0.1) < 0.01


def test_nobody_in_particular_is_in_the_first_arm() -> None:
    assert set(arm_of(pa.array([None] * 3, pa.int64()), HALVES, "s")) == {"a"}


def test_an_arm_without_users_gets_none() -> None:
    assert set(arm_of(USERS, {"a": 1.0, "b": 0.0}, "s")) == {"a"}
    assert set(arm_of(USERS, {"a": 0.0, "b": 1.0}, "s")) == {"b"}


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({}, "at least one"),
        ({"a": 0.5}, "sum to 0.5"),
        ({"a": -0.5, "b": 1.5}, "'a' has the share -0.5"),
        ({"a": float("nan"), "b": 1.0}, "share nan"),
    ],
)
def test_shares_that_are_none_are_refused(arms: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        arm_of(USERS, arms, "s")
