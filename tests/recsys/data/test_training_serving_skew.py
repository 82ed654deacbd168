"""Training-serving skew: what examples hold of an event is what a request made at that moment, of
what was known until then, is read as."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import fresh
from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.event_log import EventLog
from feature_store.examples import write_examples
from feature_store.protocols import LeaveOneOut
from feature_store.schema import Feature, Schema
from feature_store.splits import make_split
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.inputs import Requests
from recsys.rankers.din import DIN, DINConfig
from recsys.rankers.features import HistoryOptions

SCHEMA = Schema(
    user="user_id",
    item="item_id",
    label="liked",
    event_type="kind",
    features=(
        Feature(name="user_id", kind="id", side="user", dtype="int64"),
        Feature(name="club", kind="id", side="user"),
        Feature(name="badges", kind="bag", side="user"),
        Feature(name="age", kind="dense", side="user", dtype="float64"),
        Feature(name="item_id", kind="id", side="item"),
        Feature(name="kind", kind="id", side="context"),
        Feature(name="device", kind="id", side="context"),
        Feature(name="hour", kind="dense", side="context", dtype="float64"),
        Feature(name="number", kind="dense", side="context", dtype="int64"),
        Feature(name="liked", kind="dense", side="context", dtype="float32"),
    ),
)
LENGTH = 3
HISTORIES = {
    "history": HistoryOptions(),
    "bought": HistoryOptions(event_types=("buy",)),
    "good": HistoryOptions(positives=True),
    "good_clicks": HistoryOptions(event_types=("click",), positives=True),
}


@dataclass(frozen=True)
class Event:
    """An event of a user, `half_seconds` after the first moment."""

    user: int
    item: str
    half_seconds: int
    liked: float | None
    kind: str
    device: str | None
    hour: float | None


def events_of(user: int) -> st.SearchStrategy[list[Event]]:
    """Some share a second, some a moment; some items come again, some have nothing but one."""
    return st.lists(
        st.builds(
            Event,
            user=st.just(user),
            item=st.sampled_from(["a", "b", "c", "d"]),
            half_seconds=st.integers(0, 12),
            liked=st.sampled_from([0.0, 1.0, 1.0, None]),
            kind=st.sampled_from(["click", "buy"]),
            device=st.sampled_from(["phone", "desk", None]),
            hour=st.none() | st.floats(0, 24),
        ),
        min_size=4,
        max_size=9,
    )


USERS = {
    "user_id": [1, 2, 3],
    "club": ["rowing", None, "chess"],
    "badges": [["x", "y"], [], None],
    "age": [30.1, None, 50.0],
}


def examples_of(events: list[Event], folder: Path, config: DINConfig) -> Examples:
    log = EventLog.create(folder / "log", SCHEMA)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    columns = {
        "user_id": [event.user for event in events],
        "item_id": [event.item for event in events],
        "time": [start + timedelta(seconds=event.half_seconds / 2) for event in events],
        "kind": [event.kind for event in events],
        "device": [event.device for event in events],
        "hour": [event.hour for event in events],
        "number": list(range(len(events))),
        "liked": [event.liked for event in events],
    }
    log.append(pa.table(columns, log.schema.events_schema()))
    catalogue = Catalogue(log.folder, SCHEMA)
    catalogue.write("user", pa.table(USERS, SCHEMA.side_schema("user")))
    rows = DIN.rows_for(config)
    with Engine(EngineConfig(threads=1)) as engine:
        split = make_split(engine, log, LeaveOneOut())
        write_examples(engine, split, catalogue, folder / "examples", rows_of=rows)
    return Examples(folder / "examples")


def request_of(event: Event, number: int, known: list[Event], delay_s: int) -> dict[str, Any]:
    """What a shop would ask at the moment of an event: earlier seconds are known."""
    second = event.half_seconds // 2 - max(delay_s, 1)
    before = [e for e in known if e.user == event.user and e.half_seconds // 2 <= second]
    before.sort(key=lambda earlier: earlier.half_seconds)  # stable: ties as they were logged
    row = USERS["user_id"].index(event.user)
    lists = {
        name: [
            e.item
            for e in before
            if e.kind in (history.event_types or ("click", "buy"))
            and (e.liked == 1 or not history.positives)
        ]
        for name, history in HISTORIES.items()
    }
    features = {name: values[row] for name, values in USERS.items()}
    context = {"device": event.device, "hour": event.hour, "number": float(number)}
    return {**features, **context, **lists}


@settings(max_examples=2)
@given(st.tuples(*map(events_of, USERS["user_id"])), st.sampled_from([0, 2]), st.randoms())
def test_an_event_s_features_are_those_of_a_request_at_its_moment(
    by_user: tuple[list[Event], ...], delay_s: int, random: Any
) -> None:
    log = [event for events in by_user for event in events]
    random.shuffle(log)  # shops write as they please
    config = DINConfig(
        width=2,
        max_length=LENGTH,
        delay_days=delay_s / 86_400,
        histories=HISTORIES,
        user_features=tuple(name for name in USERS),
        context_features=("device", "hour", "number"),
    )
    asked = 0
    with tempfile.TemporaryDirectory() as place:
        examples = examples_of(log, Path(place), config)
        ranker = fresh(config, examples)
        vocabularies = {f.name: examples.vocabulary(f.name) for f in SCHEMA.features if f.embedded}
        for role in ("train", "validation", "test"):
            for batch in examples.reader(role, ranker.inputs, ReaderConfig()):
                numbers = batch.column("number").int().tolist()
                # a delay is of training alone: who asks then knows the newest
                delay = delay_s if role == "train" else 0
                rows = [request_of(log[number], number, log, delay) for number in numbers]
                table = pa.Table.from_pylist(rows)
                requests = Requests(table, vocabularies)
                for of in ranker.inputs:
                    torch.testing.assert_close(
                        of.from_requests(requests),
                        of.from_batch(batch),
                        rtol=0,
                        atol=0,
                        equal_nan=True,
                        msg=lambda text, of=of, role=role: f"{of.name} of {role}: {text}",
                    )
                asked += len(numbers)
    assert asked == sum(event.liked is not None for event in log)
