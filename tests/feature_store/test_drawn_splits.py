"""Splits that are drawn: whole users, whole items, and shares of every user's events."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feature_store.engine import Engine, EngineConfig
from feature_store.protocols import ItemHoldout, Random, UserHoldout
from feature_store.schema import Feature, Schema

SCHEMA = Schema(
    user="u",
    item="i",
    features=(
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item"),
    ),
)
START = datetime(2024, 1, 1)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineConfig(threads=2))


FEW_TO_MANY = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89]


def many_users(engine: Engine, counts: list[int]) -> Any:
    """User n has counts[n] events, a second apart; positions are shuffled over users."""
    users = np.repeat(np.arange(len(counts)), counts)
    table = pa.table(
        {
            "u": users,
            "i": [f"i{n}" for n in range(len(users))],
            "time": [START + timedelta(seconds=second) for second in range(len(users))],
            "position": np.random.default_rng(3).permutation(len(users)),
        }
    )
    return engine.table(table)


def by_user(engine: Engine, config: Any, counts: list[int]) -> list[Counter[str]]:
    events = many_users(engine, counts)
    frame = events.mutate(role=config.role(events, SCHEMA)).to_pandas()
    return [Counter(frame.role[frame.u == user]) for user in range(len(counts))]


def test_whole_users_are_held_out_and_their_first_events_are_inputs(engine: Engine) -> None:
    counts = [10, 7, 4, 1, 25] * 20
    found = by_user(engine, UserHoldout(seed=5), counts)
    kinds = [frozenset(roles) for roles in found]
    held = {"test": 0, "validation": 0}
    for roles, count in zip(found, counts, strict=True):
        for role in held:
            if role in roles or f"{role}_input" in roles:
                assert set(roles) <= {role, f"{role}_input"}
                assert roles[f"{role}_input"] == int(0.8 * count)
                held[role] += 1
    assert held == {"test": 10, "validation": 10}
    assert kinds.count(frozenset({"train"})) == 80
    assert by_user(engine, UserHoldout(seed=5), counts) == found
    assert by_user(engine, UserHoldout(seed=6), counts) != found


def test_the_inputs_of_a_held_out_user_come_before_its_targets(engine: Engine) -> None:
    events = many_users(engine, [10] * 30)
    frame = events.mutate(role=UserHoldout().role(events, SCHEMA)).to_pandas()
    for _, part in frame[frame.role.str.startswith("test")].groupby("u"):
        inputs, targets = part[part.role == "test_input"], part[part.role == "test"]
        assert (len(inputs), len(targets)) == (8, 2)
        assert inputs.time.max() < targets.time.min()


def test_whole_items_are_held_out(engine: Engine) -> None:
    """All their events have one role, whoever had them."""
    names = np.random.default_rng(1).integers(0, 60, 900)
    table = pa.table(
        {"u": np.arange(900) % 30, "i": [f"i{n}" for n in names], "position": range(900)}
    )
    events = engine.table(table)

    def held(config: ItemHoldout) -> dict[str, str]:
        frame = events.mutate(role=config.role(events, SCHEMA)).to_pandas()
        roles = frame.groupby("i").role.unique()
        assert (roles.str.len() == 1).all()
        return roles.str[0].to_dict()

    found = held(ItemHoldout(test=0.2, validation=0.2))
    assert Counter(found.values()) == {"train": 36, "test": 12, "validation": 12}
    assert held(ItemHoldout(test=0.2, validation=0.2)) == found
    assert held(ItemHoldout(test=0.2, validation=0.2, seed=1)) != found


def test_every_event_is_the_test_of_exactly_one_fold(engine: Engine) -> None:
    folds = [Random(folds=5, fold=fold) for fold in range(5)]
    events = many_users(engine, FEW_TO_MANY)
    roles = [events.mutate(role=f.role(events, SCHEMA)).to_pandas().role for f in folds]
    tests = np.stack([role == "test" for role in roles])
    assert (tests.sum(0) == 1).all()
    for config, role in zip(folds, roles, strict=True):
        assert abs((role == "validation").mean() - config.validation) < 0.02
        for roles_of_user, count in zip(
            by_user(engine, config, FEW_TO_MANY), FEW_TO_MANY, strict=True
        ):
            assert abs(roles_of_user["test"] - count / 5) < 1  # each user's share, not the log's


@settings(max_examples=20, deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    test=st.floats(0.05, 0.45),
    seed=st.integers(0, 9),
)
def test_random_shares_hold_for_every_user(
    engine: Engine, counts: list[int], test: float, seed: int
) -> None:
    config = Random(test=test, validation=0.2, seed=seed)
    for roles, count in zip(by_user(engine, config, counts), counts, strict=True):
        # the golden ratio's multiples are spread more evenly than any other number's
        assert abs(roles["test"] - test * count) < 3
        assert abs(roles["validation"] - 0.2 * count) < 3


@pytest.mark.parametrize("options", [{"candidates": "known"}, {"validation": 0.5, "test": 0.5}])
def test_impossible_holdouts_of_items_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ItemHoldout(**options)


@pytest.mark.parametrize(
    "options", [{"folds": 5, "fold": 5}, {"validation": 0.5, "test": 0.5}, {"folds": 1}]
)
def test_impossible_random_splits_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Random(**options)
