"""Labelled examples: which events a ranker learns from, and from what it may know of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, write_examples
from feature_store.labels import LabelConfig, TaskConfig, labelled
from feature_store.protocols import GlobalTime
from feature_store.schema import Feature, Schema
from feature_store.splits import Split, make_split
from feature_store.vocabulary import Vocabulary

SCHEMA = Schema(
    user="u",
    item="i",
    label="stars",
    features=(
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="country", kind="id", side="user"),
        Feature(name="i", kind="id", side="item"),
        Feature(name="device", kind="id", side="context"),
        Feature(name="hour", kind="dense", side="context", dtype="int64"),
        Feature(name="stars", kind="dense", side="context", dtype="float32"),
    ),
)
DAY = 86_400
# user, item, day, device, hour, stars
EVENTS = [
    (7, "a", 0, "phone", 1, 5.0),
    (7, "b", 1, "phone", None, 3.0),
    (3, "a", 2, "desk", 2, 1.0),
    (3, "c", 3, None, 3, 4.0),
    (3, "b", 4, "desk", 4, None),
    (9, "c", 5, "desk", 5, 2.0),
    (7, "c", 6, "phone", 6, 5.0),
    (9, "a", 7, "phone", 7, 4.0),
    (9, "b", 8, "tv", 8, 3.0),
]
SPLIT = GlobalTime(
    validation_start=datetime(1970, 1, 6, tzinfo=UTC), test_start=datetime(1970, 1, 7, tzinfo=UTC)
)
LABELLED = RowsOf(per="event", histories={}, labels=True)
STARS = LabelConfig(positive_from=4, leave_out=(3,))


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineConfig(threads=1))


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    found = EventLog.create(tmp_path / "log", SCHEMA)
    users, items, days, devices, hours, stars = zip(*EVENTS, strict=True)
    times = [datetime.fromtimestamp(day * DAY, UTC) for day in days]
    table = {"u": users, "i": items, "time": times, "device": devices, "hour": hours}
    found.append(pa.table({**table, "stars": stars}))
    Catalogue(found.folder, SCHEMA).write("user", pa.table({"u": [7, 9], "country": ["nl", None]}))
    return found


def write(engine: Engine, split: Split, log: EventLog, folder: Path, **options: object) -> None:
    catalogue = Catalogue(log.folder, SCHEMA)
    write_examples(engine, split, catalogue, folder, rows_of=LABELLED, **options)  # type: ignore[arg-type]


def rows(path: Path) -> list[tuple[object, ...]]:
    table = pq.read_table(path).select(["u", "i", "device", "hour", "country", "label", "time"])
    return [tuple(row.values()) for row in table.to_pylist()]


def test_every_labelled_event_is_a_row_of_its_role(
    engine: Engine, log: EventLog, tmp_path: Path
) -> None:
    """Users 3, 7, 9 have rows 1, 2, 3, and items a, b, c too: b has no label that counts."""
    split = make_split(engine, log, SPLIT, STARS)
    assert split.counts == {"test": 2, "train": 3, "validation": 1}
    write(engine, split, log, tmp_path / "e")
    assert rows(tmp_path / "e" / "train.parquet") == [
        (2, 1, 2, 1.0, 1, 1.0, 0),
        (1, 1, 1, 2.0, 0, 0.0, 2 * DAY),
        (1, 3, 0, 3.0, 0, 1.0, 3 * DAY),
    ]
    assert rows(tmp_path / "e" / "validation.parquet") == [(3, 3, 1, 5.0, 0, 0.0, 5 * DAY)]
    assert [row[5] for row in rows(tmp_path / "e" / "test.parquet")] == [1.0, 1.0]
    assert "stars" not in pq.read_schema(tmp_path / "e" / "train.parquet" / "00000.parquet").names


def test_a_later_window_alone_is_trained_on(engine: Engine, log: EventLog, tmp_path: Path) -> None:
    split = make_split(engine, log, SPLIT, STARS)
    write(engine, split, log, tmp_path / "e", since=datetime(1970, 1, 3))
    assert [row[-1] for row in rows(tmp_path / "e" / "train.parquet")] == [2 * DAY, 3 * DAY]
    assert len(rows(tmp_path / "e" / "test.parquet")) == 2


def test_known_ids_keep_their_rows(engine: Engine, log: EventLog, tmp_path: Path) -> None:
    base = {"i": Vocabulary.fit(pa.array(["c", "x"])), "u": Vocabulary.fit(pa.array([9]))}
    split = make_split(engine, log, SPLIT, STARS)
    write(engine, split, log, tmp_path / "e", base=base)
    items = Vocabulary.load(tmp_path / "e" / "vocabulary" / "i.arrow")
    assert items.values.to_pylist() == ["c", "x", "a", "b"]
    assert [row[:2] for row in rows(tmp_path / "e" / "validation.parquet")] == [(1, 1)]


def test_labels_are_part_of_the_fingerprint(engine: Engine, log: EventLog) -> None:
    rules = [STARS, LabelConfig(positive_from=5, leave_out=(3,)), LabelConfig(positive_from=4)]
    splits = [make_split(engine, log, SPLIT, one) for one in rules]
    assert len({split.fingerprint for split in splits}) == 3
    assert splits[0].parts["labels.leave_out"] == [3.0]
    plain = make_split(engine, log, SPLIT)
    assert not any(name.startswith("labels") for name in plain.parts)


def test_labels_that_are_no_labels_are_refused(
    engine: Engine, log: EventLog, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"column 'stars' holds .* set labels.positive_from"):
        make_split(engine, log, SPLIT, LabelConfig())
    for values, shown, least in (
        ([0, 1, 2], "0, 1, 2", "1"),
        ([1, 2, 3, 4, 5], "1, 2, 3, 4, 5", "4"),
        ([-1, 1], "-1, 1", "1"),
        (range(10), "0, 1, 2, 3, 4, 5, ...", "6"),
    ):
        rows = engine.table(pa.table({"stars": pa.array(values, pa.float32())}))
        with pytest.raises(
            DataError, match=rf"'stars' holds {shown}, and .*positive_from = {least}$"
        ):
            labelled(engine, rows, SCHEMA, LabelConfig())
    bare = Schema(user="u", item="i", features=SCHEMA.features[:3])
    other = EventLog.create(tmp_path / "bare", bare)
    other.append(pa.table({"u": [1], "i": ["a"], "time": [datetime(2024, 1, 1)]}))
    with pytest.raises(DataError, match="learns from labels, and this log has none"):
        make_split(engine, other, SPLIT, STARS)


def test_labels_of_0_and_1_need_no_rule(engine: Engine, log: EventLog, tmp_path: Path) -> None:
    clicks = EventLog.create(tmp_path / "clicks", SCHEMA)
    days = [datetime(1970, 1, day, tzinfo=UTC) for day in (1, 2, 6, 8)]
    columns = {"u": [1, 2, 1, 2], "i": list("abab"), "time": days, "stars": [0, 1, 1, 0]}
    clicks.append(pa.table({**columns, "device": [None] * 4, "hour": [None] * 4}))
    split = make_split(engine, clicks, SPLIT, LabelConfig())
    write(engine, split, clicks, tmp_path / "e")
    assert [row[5] for row in rows(tmp_path / "e" / "train.parquet")] == [0.0, 1.0]


def test_further_tasks_have_labels_of_their_own(
    engine: Engine, log: EventLog, tmp_path: Path
) -> None:
    """From a column, where it is empty there is none; the first label stays as it was."""
    tasks = {
        "perfect": TaskConfig(column="stars", positive_from=5),
        "late": TaskConfig(column="hour", positive_from=3),
    }
    split = make_split(engine, log, SPLIT, STARS.model_copy(update={"tasks": tasks}))
    assert split.fingerprint != make_split(engine, log, SPLIT, STARS).fingerprint
    write(engine, split, log, tmp_path / "e")
    table = pq.read_table(tmp_path / "e" / "train.parquet")
    columns = ["label", "label#perfect", "label#late"]
    rows = [tuple(row.values()) for row in table.select(columns).to_pylist()]
    assert rows == [(1, 1, 0), (0, 0, 0), (1, 0, 1)]
    assert "labels.tasks" not in make_split(engine, log, SPLIT, STARS).parts


TYPED = Schema(**{**SCHEMA.model_dump(), "event_type": "device"})


@pytest.mark.parametrize(
    ("task", "schema", "message"),
    [
        ({"column": "star"}, SCHEMA, r"tasks\.t\.column: .* no column 'star'; they have: device"),
        ({"column": "device"}, SCHEMA, "'device' holds no numbers"),
        ({"column": "stars"}, SCHEMA, r"set labels\.tasks\.t\.positive_from .* = 4"),
        ({"event_types": ["phone"]}, SCHEMA, "names no types: give its schema the event_type role"),
        (
            {"event_types": ["fax"]},
            TYPED,
            "the type 'fax'; this log has: desk, ph",
        ),
        ({"column": "hour", "among": ["fax"]}, TYPED, "no event is of the type 'fax'"),
    ],
)
def test_tasks_of_what_a_log_does_not_say_are_refused(
    task: dict[str, object], schema: Schema, message: str, engine: Engine
) -> None:
    config = LabelConfig(positive_from=4, tasks={"t": task})  # type: ignore[dict-item]
    columns = {"stars": pa.array([1.0, 4.0, 5.0], pa.float32()), "hour": [0, 1, 1]}
    rows = engine.table(pa.table({**columns, "device": ["desk", "phone", None]}))
    with pytest.raises(DataError, match=message) as caught:
        labelled(engine, rows, schema, config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"t": {}}, "name a column or event_types"),
        ({"t": {"column": "a", "event_types": ["b"]}}, "and not both"),
        ({"t": {"event_types": ["b"], "positive_from": 1}}, "positive_from is of a column"),
        ({"Label": {"column": "a"}}, "'Label' is the first task's name"),
        ({"a.b": {"column": "a"}}, "call it otherwise"),
    ],
)
def test_tasks_that_say_too_little_or_too_much_are_refused(
    tasks: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        LabelConfig(tasks=tasks)  # type: ignore[arg-type]
