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
from ibis.backends.duckdb import Backend
from pydantic import ValidationError

from feature_store.engine import connect
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.schema import Feature, Schema
from feature_store.splits import GlobalTime, LeaveOneOut, Split, make_split

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
def engine() -> Backend:
    return connect(threads=2)


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
        found.setdefault(row["role"], []).append((row["u"], row["i"]))
    return found


def test_leave_one_out_takes_the_last_two_events_of_users_with_three(
    engine: Backend, log: EventLog
) -> None:
    split = make_split(engine, log, LeaveOneOut())
    assert roles(split) == {
        "train": [(1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "a")],
        "validation": [(1, "c"), (3, "b")],  # c comes before d at the same time: log order
        "test": [(1, "d"), (3, "a")],
    }
    assert split.counts == {"test": 2, "train": 5, "validation": 2}
    assert split.protocol == "leave_one_out"


def test_global_time_cuts_all_users_at_the_same_two_moments(engine: Backend, log: EventLog) -> None:
    # the log ends at hour 96: test is [72, 96], validation [48, 72)
    split = make_split(engine, log, GlobalTime(test_days=1, validation_days=1))
    assert roles(split) == {
        "train": [(1, "a"), (1, "b"), (2, "a"), (2, "b"), (3, "a")],
        "validation": [(1, "c"), (1, "d")],
        "test": [(3, "b"), (3, "a")],
    }


@pytest.mark.parametrize("zone", [None, UTC, timezone(timedelta(hours=9))])
def test_explicit_moments_are_moments_whatever_their_time_zone(
    engine: Backend, log: EventLog, zone: timezone | None
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
    engine: Backend, log: EventLog, config: LeaveOneOut | GlobalTime, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make_split(engine, log, config)


def test_filters_of_roles_that_the_schema_lacks_are_refused(
    engine: Backend, tmp_path: Path
) -> None:
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
    engine: Backend, log: EventLog, options: dict[str, Any], left: set[int]
) -> None:
    events = engine.read_parquet([str(path) for path in log.files])
    kept = LeaveOneOut(**options).keep(events, SCHEMA).to_pyarrow()
    assert set(kept["position"].to_pylist()) == left


OPTIONS: list[dict[str, Any]] = [
    {"event_types": ("buy", "view")},
    {"min_label": 0.0},
    {"min_user_events": 2},
    {"min_item_events": 2},
    {"seen": "include"},
    {"candidates": "catalogue"},
]


def test_any_option_and_any_change_of_the_log_changes_the_fingerprint(
    engine: Backend, log: EventLog, tmp_path: Path
) -> None:
    assert {name for one in OPTIONS for name in one} == set(LeaveOneOut.model_fields) - {"protocol"}
    configs = [LeaveOneOut(), *(LeaveOneOut(**one) for one in OPTIONS)]
    configs += [GlobalTime(test_days=1, validation_days=days) for days in (1, 2)]
    prints = [make_split(engine, log, config).fingerprint for config in configs]
    altered = [*EVENTS[:-1], (3, "b", 96, "buy", None)]
    prints.append(make_split(engine, make_log(tmp_path / "b", altered), LeaveOneOut()).fingerprint)
    assert len(set(prints)) == len(prints)


def test_the_fingerprint_is_the_same_in_another_process(
    engine: Backend, log: EventLog, tmp_path: Path
) -> None:
    here = make_split(engine, log, LeaveOneOut()).fingerprint
    assert make_split(connect(), make_log(tmp_path / "b", EVENTS), LeaveOneOut()).fingerprint == (
        here
    )
    program = (
        "from pathlib import Path; from feature_store.engine import connect;"
        "from feature_store.event_log import EventLog;"
        "from feature_store.splits import LeaveOneOut, make_split;"
        f"log = EventLog.open(Path({str(log.folder)!r}));"
        "print(make_split(connect(), log, LeaveOneOut()).fingerprint)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert out.stdout.strip() == here, out.stderr


def test_a_protocol_refuses_options_it_does_not_have() -> None:
    with pytest.raises(ValidationError, match="test_days"):
        LeaveOneOut(test_days=3)  # type: ignore[call-arg]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10)), min_size=1, max_size=30))
def test_training_precedes_validation_precedes_test(
    engine: Backend, drawn: list[tuple[int, int]]
) -> None:
    table = pa.table(
        {
            "u": [user for user, _ in drawn],
            "i": ["a"] * len(drawn),
            "time": [START + timedelta(days=day) for _, day in drawn],
            "position": range(len(drawn)),
        }
    )
    events = engine.create_table("drawn", table, temp=True, overwrite=True)

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
