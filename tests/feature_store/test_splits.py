"""Who may be seen when: roles, filters, and a fingerprint that tells protocols apart."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from feature_store.columns import ROLE
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.protocols import (
    Fixed,
    GlobalTime,
    ItemHoldout,
    LeaveOneOut,
    NextBasket,
    Random,
    UserHoldout,
)
from feature_store.schema import Feature, Schema
from feature_store.splits import Split, make_split

FEATURES = (
    Feature(name="u", kind="id", side="user", dtype="int64"),
    Feature(name="i", kind="id", side="item"),
    Feature(name="kind", kind="id", side="context"),
    Feature(name="stars", kind="dense", side="context", dtype="float32"),
)
SCHEMA = Schema(user="u", item="i", label="stars", event_type="kind", features=FEATURES)
PLAIN = Schema(user="u", item="i", features=FEATURES)
START = datetime(2024, 1, 1)

# user, item, hour, kind, stars; the order of the log breaks ties in time
EVENTS = [
    (1, "a", 0, "buy", 5.0),
    (1, "b", 24, "buy", 4.0),
    (1, "c", 48, "view", 1.0),
    (1, "d", 48, "buy", 5.0),
    (2, "a", 10, "buy", 2.0),
    (2, "b", 11, "buy", 5.0),
    (3, "a", 12, "view", 5.0),
    (3, "b", 72, "buy", 3.0),
    (3, "a", 96, "buy", None),
]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineConfig(threads=2))


def make_log(folder: Path, events: list[tuple[Any, ...]], schema: Schema = SCHEMA) -> EventLog:
    log = EventLog.create(folder, schema)
    users, items, hours, kinds, stars = zip(*events, strict=True)
    times = [START + timedelta(hours=hour) for hour in hours]
    log.append(pa.table({"u": users, "i": items, "time": times, "kind": kinds, "stars": stars}))
    return log


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return make_log(tmp_path / "log", EVENTS)


def roles(split: Split) -> dict[str, list[tuple[int, str]]]:
    """(user, item) of every event by role, in the order of the log."""
    found: dict[str, list[tuple[int, str]]] = {}
    for row in split.events.order_by("position").to_pyarrow().to_pylist():
        found.setdefault(row[ROLE], []).append((row["u"], row["i"]))
    return found


def test_leave_one_out_takes_the_last_two_events_of_users_with_three(
    engine: Engine, log: EventLog
) -> None:
    split = make_split(engine, log, LeaveOneOut())
    assert roles(split) == {
        "train": [(1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "a")],
        "validation": [(1, "c"), (3, "b")],  # c comes before d at the same time: log order
        "test": [(1, "d"), (3, "a")],
    }
    assert split.counts == {"test": 2, "train": 5, "validation": 2}
    assert split.protocol == "leave_one_out"


def test_global_time_cuts_all_users_at_the_same_two_moments(engine: Engine, log: EventLog) -> None:
    # the log ends at hour 96: test is [72, 96], validation [48, 72)
    split = make_split(engine, log, GlobalTime(test_days=1, validation_days=1))
    assert roles(split) == {
        "train": [(1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "a")],
        "validation": [(1, "c"), (1, "d")],
        "test": [(3, "b"), (3, "a")],
    }


@pytest.mark.parametrize("zone", [None, UTC, timezone(timedelta(hours=9))])
def test_explicit_moments_are_moments_whatever_their_time_zone(
    engine: Engine, log: EventLog, zone: timezone | None
) -> None:
    moments = [datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 4, tzinfo=UTC)]
    if zone is None:  # no zone is UTC, also beside one that has a zone
        moments[1] = moments[1].replace(tzinfo=None)
    else:
        moments = [moment.astimezone(zone) for moment in moments]
    split = make_split(engine, log, GlobalTime(validation_start=moments[0], test_start=moments[1]))
    found = roles(split)
    assert found["validation"] == [(1, "b"), (1, "c"), (1, "d")]
    assert found["test"] == [(3, "b"), (3, "a")]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (GlobalTime(test_start=START), "both split.validation_start and split.test_start"),
        (GlobalTime(validation_start=START), "both split.validation_start and split.test_start"),
        (GlobalTime(validation_start=START, test_start=START), "must come after"),
        (GlobalTime(validation_days=365), "leaves no train events of 9"),
        (LeaveOneOut(min_label=9), "leaves no train events"),
        (LeaveOneOut(min_item_events=4), "leaves no validation events"),
    ],
)
def test_a_split_that_cannot_be_is_refused(
    engine: Engine, log: EventLog, config: LeaveOneOut | GlobalTime, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make_split(engine, log, config)


def test_filters_of_roles_that_the_schema_lacks_are_refused(engine: Engine, tmp_path: Path) -> None:
    log = make_log(tmp_path / "plain", EVENTS, PLAIN)
    with pytest.raises(DataError, match="no event_type role"):
        make_split(engine, log, LeaveOneOut(event_types=("buy",)))
    with pytest.raises(DataError, match="no label role"):
        make_split(engine, log, LeaveOneOut(min_label=1))


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"event_types": ("buy",)}, {0, 1, 3, 4, 5, 7, 8}),
        ({"min_label": 4.0}, {0, 1, 3, 5, 6}),  # an event without a label goes too
        ({"min_user_events": 3}, {0, 1, 2, 3, 6, 7, 8}),
        ({"min_item_events": 2}, {0, 1, 4, 5, 6, 7, 8}),  # c and d occur once
        # items first, then users by what is left: user 1 keeps two of four events
        ({"min_item_events": 2, "min_user_events": 3}, {6, 7, 8}),
        # counts are of the events that passed the other filters
        ({"event_types": ("buy",), "min_item_events": 4}, set()),
    ],
)
def test_filters_keep_the_events_they_say(
    engine: Engine, log: EventLog, options: dict[str, Any], left: set[int]
) -> None:
    events = engine.scan(log.files)
    kept = LeaveOneOut(**options).keep(events, SCHEMA).to_pyarrow()
    assert set(kept["position"].to_pylist()) == left


OPTIONS: list[dict[str, Any]] = [
    {"event_types": ("buy", "view")},
    {"min_label": 0.0},
    {"min_user_events": 2},
    {"min_item_events": 2},
    {"seen": "include"},
    {"candidates": "catalogue"},
    {"candidates": "new"},
    {"sampled_candidates": 100},
    {"cold_users": "count"},
]


def test_any_option_and_any_change_of_the_log_changes_the_fingerprint(
    engine: Engine, log: EventLog, tmp_path: Path
) -> None:
    assert {name for one in OPTIONS for name in one} == set(LeaveOneOut.model_fields) - {"protocol"}
    configs = [LeaveOneOut(), *(LeaveOneOut(**one) for one in OPTIONS)]
    configs += [GlobalTime(test_days=1, validation_days=days) for days in (1, 2)]
    configs += [Random(folds=2, fold=fold, validation=0.3) for fold in (0, 1)]
    prints = [make_split(engine, log, config).fingerprint for config in configs]
    altered = [*EVENTS[:-1], (3, "b", 96, "buy", None)]
    prints.append(make_split(engine, make_log(tmp_path / "b", altered), LeaveOneOut()).fingerprint)
    assert len(set(prints)) == len(prints)


def test_the_fingerprint_is_the_same_in_another_process(
    engine: Engine, log: EventLog, tmp_path: Path
) -> None:
    here = make_split(engine, log, LeaveOneOut()).fingerprint
    assert make_split(Engine(), make_log(tmp_path / "b", EVENTS), LeaveOneOut()).fingerprint == (
        here
    )
    program = (
        "from pathlib import Path; from feature_store.engine import Engine, EngineConfig;"
        "from feature_store.event_log import EventLog;"
        "from feature_store.protocols import LeaveOneOut;"
        "from feature_store.splits import make_split;"
        f"log = EventLog.open(Path({str(log.folder)!r}));"
        "print(make_split(Engine(), log, LeaveOneOut()).fingerprint)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert out.stdout.strip() == here, out.stderr


def test_a_protocol_refuses_options_it_does_not_have() -> None:
    with pytest.raises(ValidationError, match="test_days"):
        LeaveOneOut(test_days=3)  # type: ignore[call-arg]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10)), min_size=1, max_size=30))
def test_training_precedes_validation_precedes_test(
    engine: Engine, drawn: list[tuple[int, int]]
) -> None:
    table = pa.table(
        {
            "u": [user for user, _ in drawn],
            "i": ["a"] * len(drawn),
            "time": [START + timedelta(days=day) for _, day in drawn],
            "position": range(len(drawn)),
        }
    )
    events = engine.table(table)

    def moments(config: LeaveOneOut | GlobalTime, user: int | None) -> dict[str, list[Any]]:
        rows = events.mutate(role=config.role(events, SCHEMA)).to_pyarrow().to_pylist()
        found: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
        for row in rows:
            if user is None or row["u"] == user:
                found[row["role"]].append((row["time"], row["position"] if user is not None else 0))
        return found

    whole = moments(GlobalTime(test_days=2.5, validation_days=3), None)
    assert max(whole["train"], default=(datetime.min,)) < min(
        whole["validation"], default=(datetime.max,)
    )
    assert max(whole["train"] + whole["validation"], default=(datetime.min,)) < min(whole["test"])
    for user in {user for user, _ in drawn}:
        own = moments(LeaveOneOut(), user)
        count = sum(len(part) for part in own.values())
        last = 1 if count >= 3 else 0
        assert (len(own["validation"]), len(own["test"])) == (last, last)
        if last:
            assert max(own["train"]) < own["validation"][0] < own["test"][0]


def test_the_published_split_is_taken_as_it_is_and_validation_from_training(
    engine: Engine, tmp_path: Path
) -> None:
    schema = Schema(
        user="u",
        item="i",
        published_role="part",
        clock="none",
        features=(*FEATURES, Feature(name="part", kind="text", side="context")),
    )
    log = EventLog.create(tmp_path / "log", schema)
    count = 200
    table = {"u": [n % 10 for n in range(count)], "i": [f"i{n}" for n in range(count)]}
    rest = {"time": [START] * count, "kind": ["x"] * count, "stars": [1.0] * count}
    parts = ["test" if n >= 150 else "train" for n in range(count)]
    log.append(pa.table({**table, **rest, "part": parts}))
    split = make_split(engine, log, Fixed())
    assert split.counts == {"test": 50, "train": 135, "validation": 15}
    frame = split.events.to_pandas()
    assert ((frame[ROLE] == "test") == (frame.part == "test")).all()
    assert make_split(engine, log, Fixed(seed=1)).fingerprint != split.fingerprint

    whole = EventLog.create(tmp_path / "whole", schema)
    parts = ["test" if n >= 150 else "validation" if n >= 130 else "train" for n in range(count)]
    whole.append(pa.table({**table, **rest, "part": parts}))
    assert make_split(engine, whole, Fixed()).counts == {
        "test": 50,
        "train": 130,
        "validation": 20,
    }


@pytest.mark.parametrize(
    ("clock", "config", "refused"),
    [
        ("order", GlobalTime(test_days=1), "no times"),
        ("none", GlobalTime(test_days=1), "neither times nor an order"),
        ("none", LeaveOneOut(), "neither times nor an order"),
        ("none", UserHoldout(), "neither times nor an order"),
        ("time", Fixed(), "published"),
    ],
)
def test_a_log_without_what_a_protocol_needs_is_refused(
    engine: Engine, tmp_path: Path, clock: Any, config: Any, refused: str
) -> None:
    schema = Schema(user="u", item="i", clock=clock, features=FEATURES)
    with pytest.raises(DataError, match=refused):
        make_split(engine, make_log(tmp_path / "log", EVENTS, schema), config)


def test_the_name_of_a_protocol_says_what_figures_must_not_hide() -> None:
    names = {
        LeaveOneOut().short_name,
        LeaveOneOut(sampled_candidates=100).short_name,
        Random(folds=5, fold=2).short_name,
        Random(test=0.2).short_name,
        Fixed().short_name,
        ItemHoldout().short_name,
        ItemHoldout(candidates="catalogue").short_name,
        GlobalTime(candidates="new", sampled_candidates=100).short_name,
    }
    assert names == {
        "leave_one_out",
        "leave_one_out-sampled100",
        "random-5fold-2",
        "random-70-10-20",
        "fixed",
        "item_holdout-new",
        "item_holdout",
        "global_time-new-sampled100",
    }


def test_returns_are_nobodys_interest(engine: Engine, tmp_path: Path) -> None:
    schema = Schema(
        user="u",
        item="i",
        quantity="n",
        features=(*FEATURES[:2], Feature(name="n", kind="dense", side="context", dtype="int64")),
    )
    log = EventLog.create(tmp_path / "log", schema)
    times = [START + timedelta(hours=hour) for hour in range(5)]
    log.append(
        pa.table({"u": [1] * 5, "i": list("abcad"), "time": times, "n": [1, 2, 1, -1, None]})
    )
    split = make_split(engine, log, LeaveOneOut())
    assert roles(split) == {
        "train": [(1, "a"), (1, "b")],
        "validation": [(1, "c")],
        "test": [(1, "d")],
    }
    assert split.returns is not None
    assert split.returns.to_pyarrow().column("i").to_pylist() == ["a"]


BASKETS = [  # user, item, hour
    *((1, "a", 0), (1, "b", 0), (1, "c", 9), (1, "a", 30), (1, "d", 30), (1, "a", 55)),
    *((2, "a", 0), (2, "b", 1)),
]


@pytest.mark.parametrize(
    ("options", "roles"),
    [
        # four moments of user 1; user 2's two are only trained on
        ({}, ["train", "train", "train", "validation", "validation", "test", "train", "train"]),
        # three days of user 1, one of user 2
        (
            {"basket": "day"},
            ["train"] * 3 + ["validation"] * 2 + ["test", "train", "train"],
        ),
        ({"min_baskets": 2, "basket": "day"}, ["train"] * 3 + ["validation"] * 2 + ["test"]),
        ({"min_baskets": 3}, ["train"] * 3 + ["validation"] * 2 + ["test"]),
    ],
)
def test_the_last_basket_of_a_user_is_the_test(
    engine: Engine, tmp_path: Path, options: dict[str, Any], roles: list[str]
) -> None:
    events = [(*event, "buy", 1.0) for event in BASKETS]
    split = make_split(engine, make_log(tmp_path / "b", events), NextBasket(**options))
    assert split.protocol == "next_basket" and NextBasket().seen == "include"
    rows = engine.collect(split.events.order_by("position"))
    assert rows[ROLE].to_pylist() == roles


def test_a_basket_of_a_day_holds_all_its_moments(engine: Engine, tmp_path: Path) -> None:
    hours = [0, 24, 48, 50]
    events = [(1, item, hour, "buy", 1.0) for item, hour in zip("abca", hours, strict=True)]
    log = make_log(tmp_path / "b", events)
    of_day = make_split(engine, log, NextBasket(basket="day"))
    assert of_day.counts == {"test": 2, "train": 1, "validation": 1}
    assert make_split(engine, log, NextBasket()).counts == {"test": 1, "train": 2, "validation": 1}
