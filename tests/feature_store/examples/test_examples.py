"""Examples: what the reader reads holds what the protocol lets be seen, and nothing else."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.catalogue import Catalogue
from feature_store.durable import restore
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples import ExamplesSummary, RowsOf, write_examples
from feature_store.protocols import GlobalTime, LeaveOneOut
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
        Feature(name="brand", kind="id", side="item"),
        Feature(name="tags", kind="bag", side="item"),
        Feature(name="cost", kind="dense", side="item", dtype="float32"),
        Feature(name="title", kind="text", side="item"),
        Feature(name="device", kind="id", side="context"),
        Feature(name="pieces", kind="dense", side="context", dtype="int64"),
        Feature(name="stars", kind="dense", side="context", dtype="float32"),
    ),
)
# user, item, second, device, pieces, stars
EVENTS = [
    (7, "a", 10, "phone", 1, 5.0),
    (7, "b", 20, "phone", None, 4.0),
    (7, "c", 20, None, 2, 3.0),  # as late as b, but behind it in the log
    (7, "d", 40, "desk", 1, 2.0),
    (3, "b", 5, "desk", 3, 1.0),
    (3, "a", 6, "desk", 1, 2.0),
    (9, "c", 1, "phone", 1, 3.0),
    (9, "e", 2, "phone", 1, 4.0),
    (9, "a", 3, "phone", 1, 5.0),
]
EVENTS_BEFORE = RowsOf(per="event")
USERS = {3: 1, 7: 2, 9: 3}  # rows of ids in ascending order
ITEMS = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "z": 6}
CATALOGUE = {
    "i": ["z", "a", "b", "c"],  # d and e are known from events alone
    "brand": ["x", "y", None, "x"],
    "tags": [["new", "old"], [], None, ["old"]],
    "cost": [9.0, 1.0, None, 3.0],
    "title": ["Z", "A", "B", "C"],
}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineConfig(threads=2))


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    (tmp_path / "log").mkdir()
    found = Catalogue(tmp_path / "log", SCHEMA)
    found.write("item", pa.table(CATALOGUE))
    found.write("user", pa.table({"u": [7, 9], "country": ["nl", None]}))
    return found


@pytest.fixture
def split(engine: Engine, catalogue: Catalogue) -> Split:
    log = EventLog.create(catalogue.folder, SCHEMA)
    users, items, at, devices, pieces, stars = zip(*EVENTS, strict=True)
    times = [datetime.fromtimestamp(second, UTC) for second in at]
    table = {"u": users, "i": items, "time": times, "device": devices, "pieces": pieces}
    log.append(pa.table({**table, "stars": stars}))
    return make_split(engine, log, LeaveOneOut())


def rows(path: Path, *columns: str) -> list[tuple[Any, ...]]:
    found = pq.read_table(path).select(list(columns)).to_pylist()
    return [tuple(row.values()) for row in found]


def test_sequences_and_requests_hold_what_the_protocol_lets_be_seen(
    engine: Engine, split: Split, catalogue: Catalogue, tmp_path: Path
) -> None:
    folder = tmp_path / "examples"
    summary = write_examples(engine, split, catalogue, folder)
    # user 9 has a single training event, from which nothing can be learned
    assert rows(folder / "train.parquet", "u", "history", "history_time") == [
        (USERS[3], [ITEMS["b"], ITEMS["a"]], [5, 6]),
        (USERS[7], [ITEMS["a"], ITEMS["b"]], [10, 20]),
    ]
    columns = ("u", "history", "history_time", "target", "time")
    assert rows(folder / "validation.parquet", *columns) == [
        (USERS[7], [ITEMS["a"], ITEMS["b"]], [10, 20], [ITEMS["c"]], 20),
        (USERS[9], [ITEMS["c"]], [1], [ITEMS["e"]], 2),
    ]
    assert rows(folder / "test.parquet", *columns) == [
        (USERS[7], [1, 2, 3], [10, 20, 20], [ITEMS["d"]], 40),
        (USERS[9], [3, 5], [1, 2], [ITEMS["a"]], 3),
    ]
    assert rows(folder / "interactions.parquet", "user", "item", "time") == [
        (3, 3, 1), (1, 2, 5), (1, 1, 6), (2, 1, 10), (2, 2, 20)
    ]  # fmt: skip
    assert summary.rows == {"train": 2, "validation": 2, "test": 2}
    assert summary.events == {"train": 5, "validation": 2, "test": 2}


def test_what_was_written_says_what_it_is(
    engine: Engine, split: Split, catalogue: Catalogue, tmp_path: Path
) -> None:
    summary = write_examples(engine, split, catalogue, tmp_path / "e")
    loaded = ExamplesSummary.load(tmp_path / "e")
    assert (loaded.protocol, loaded.fingerprint) == (split.protocol, split.fingerprint)
    assert (loaded.rows, loaded.events) == (summary.rows, summary.events)
    assert Schema.load(tmp_path / "e" / "schema.json") == SCHEMA


def test_items_and_users_lie_at_their_rows_and_unknown_values_are_row_0_or_nan(
    engine: Engine, split: Split, catalogue: Catalogue, tmp_path: Path
) -> None:
    write_examples(engine, split, catalogue, tmp_path / "e")
    items = pq.read_table(tmp_path / "e" / "items.parquet").to_pydict()
    assert items == {
        "i": [0, 1, 2, 3, 4, 5, 6],
        "brand": [0, 2, 0, 1, 0, 0, 1],  # x is row 1, y row 2
        "tags": [[], [], [], [2], [], [], [1, 2]],
        "cost": pytest.approx([nan, 1.0, nan, 3.0, nan, nan, 9.0], nan_ok=True),
        "train_events": [0, 2, 2, 1, 0, 0, 0],  # d and e are only tested on, z never sold
        "known_events": [0, 2, 2, 2, 0, 1, 0],  # before the test: c and e in validation
    }
    users = pq.read_table(tmp_path / "e" / "users.parquet").to_pydict()
    assert users == {"u": [0, 1, 2, 3], "country": [0, 0, 1, 0]}
    test = rows(tmp_path / "e" / "test.parquet", "u", "country")
    assert test == [(USERS[7], 1), (USERS[9], 0)]
    vocabulary = Vocabulary.load(tmp_path / "e" / "vocabulary" / "i.arrow")
    assert vocabulary.values.to_pylist() == list(ITEMS)


def test_a_refit_trains_on_validation_and_leaves_the_test_as_it_was(
    engine: Engine, split: Split, catalogue: Catalogue, tmp_path: Path
) -> None:
    write_examples(engine, split, catalogue, tmp_path / "search")
    write_examples(
        engine, split, catalogue, tmp_path / "refit", train_roles=("train", "validation")
    )
    assert rows(tmp_path / "refit" / "train.parquet", "u", "history") == [
        (1, [2, 1]), (2, [1, 2, 3]), (3, [3, 5])
    ]  # fmt: skip
    assert not (tmp_path / "refit" / "validation.parquet").exists()
    tests = [pq.read_table(tmp_path / name / "test.parquet") for name in ("search", "refit")]
    assert tests[0].equals(tests[1])
    items = pq.read_table(tmp_path / "refit" / "items.parquet")
    assert items["train_events"].to_pylist() == [0, 2, 2, 2, 0, 1, 0]


def test_events_have_bounded_histories_and_their_own_context(
    engine: Engine, split: Split, catalogue: Catalogue, tmp_path: Path
) -> None:
    write_examples(
        engine, split, catalogue, tmp_path / "e", rows_of=EVENTS_BEFORE, history_length=1,
        train_roles=("train", "validation"),
    )  # fmt: skip
    train = tmp_path / "e" / "train.parquet"
    columns = ("time", "u", "history", "history_time", "target", "country", "device", "label")
    found = sorted(rows(train, *columns))
    assert [row[:-2] for row in found] == [
        (1, 3, [], [], 3, 0),
        (2, 3, [3], [1], 5, 0),
        (5, 1, [], [], 2, 0),
        (6, 1, [2], [5], 1, 0),
        (10, 2, [], [], 1, 1),
        (20, 2, [1], [10], 2, 1),
        (20, 2, [2], [20], 3, 1),
    ]
    assert [row[-2:] for row in found[-2:]] == [(2, 4.0), (0, 3.0)]
    pieces = {row[:2]: row[2] for row in rows(train, "time", "target", "pieces")}
    # an unknown number is not 0
    assert [pieces[20, 2], pieces[20, 3]] == pytest.approx([nan, 2.0], nan_ok=True)
    # ids as integers, numbers as floats: that is how the reader tells them apart
    types = {field.name: field.type for field in pq.read_schema(train / "00000.parquet")}
    assert types["pieces"] == pa.float32() and types["device"] == pa.int32()
    test = rows(tmp_path / "e" / "test.parquet", "history")
    assert test == [([1, 2, 3],), ([3, 5],)]  # requests say all that was seen


def test_serving_holds_every_event_as_raw_ids(
    engine: Engine, split: Split, catalogue: Catalogue, tmp_path: Path
) -> None:
    write_examples(engine, split, catalogue, tmp_path / "e")
    assert rows(tmp_path / "e" / "serving.parquet", "u", "history", "history_time", "country") == [
        (3, ["b", "a"], [5, 6], None),
        (7, ["a", "b", "c", "d"], [10, 20, 20, 40], "nl"),
        (9, ["c", "e", "a"], [1, 2, 3], None),
    ]


def test_equal_input_gives_equal_bytes(
    engine: Engine, split: Split, catalogue: Catalogue, tmp_path: Path
) -> None:
    for name, one in (("a", engine), ("b", Engine(EngineConfig(threads=1)))):
        again = make_split(one, EventLog.open(catalogue.folder), LeaveOneOut())
        write_examples(one, again, catalogue, tmp_path / name, rows_of=EVENTS_BEFORE)
    files = sorted(
        p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()
    )
    assert len(files) >= 8
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_a_failing_write_leaves_the_old_folder_and_no_other(
    engine: Engine,
    split: Split,
    catalogue: Catalogue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    write_examples(engine, split, catalogue, out / "old")
    before = {path.name: path.stat().st_mtime_ns for path in (out / "old").iterdir()}

    def fail(*args: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(ExamplesSummary, "save", fail)
    for name in ("old", "new"):
        with pytest.raises(DataError, match="cannot be written: no space"):
            write_examples(engine, split, catalogue, out / name)
    assert [path.name for path in out.iterdir()] == ["old"]
    assert {path.name: path.stat().st_mtime_ns for path in (out / "old").iterdir()} == before


def test_a_kill_between_two_renames_loses_nothing(
    engine: Engine,
    split: Split,
    catalogue: Catalogue,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_examples(engine, split, catalogue, tmp_path / "e")
    rename = os.rename

    def killed(old: Path, new: Path) -> None:
        if Path(new).name == "e":
            raise KeyboardInterrupt
        rename(old, new)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            write_examples(engine, split, catalogue, tmp_path / "e", rows_of=EVENTS_BEFORE)
    assert not (tmp_path / "e").exists()
    restore(tmp_path / "e")
    assert ExamplesSummary.load(tmp_path / "e").rows_of == RowsOf()


def test_examples_are_replaced_as_a_whole(
    engine: Engine, split: Split, catalogue: Catalogue, tmp_path: Path
) -> None:
    write_examples(engine, split, catalogue, tmp_path / "e")
    (tmp_path / "e" / "stale.parquet").touch()
    write_examples(engine, split, catalogue, tmp_path / "e", rows_of=EVENTS_BEFORE)
    assert ExamplesSummary.load(tmp_path / "e").rows_of == EVENTS_BEFORE
    assert not (tmp_path / "e" / "stale.parquet").exists()


def test_requests_of_a_random_log_agree_with_pandas(engine: Engine, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    start = datetime(2024, 1, 1)
    frame = pd.DataFrame(
        {
            "u": rng.integers(0, 6000, 30_000),
            "i": rng.choice(list("abcdefgh"), 30_000),
            "time": [start + timedelta(days=int(day)) for day in rng.integers(0, 30, 30_000)],
        }
    )
    log = EventLog.create(tmp_path / "log", SCHEMA)
    for part in (frame[:18_000], frame[18_000:]):  # the second append goes back in time
        log.append(pa.Table.from_pandas(part, preserve_index=False))
    split = make_split(engine, log, GlobalTime(validation_days=5, test_days=5))
    write_examples(engine, split, Catalogue(tmp_path / "log", SCHEMA), tmp_path / "e")

    end = frame["time"].max()
    test, validation = end - timedelta(days=5), end - timedelta(days=10)
    ordered = frame.sort_values("time", kind="stable")  # ties stay in the order of the log
    ordered["row"] = ordered["i"].map({item: n for n, item in enumerate("abcdefgh", 1)})
    ordered["user"] = ordered["u"].rank(method="dense").astype(int)
    ordered["second"] = (ordered["time"] - datetime(1970, 1, 1)) // timedelta(seconds=1)
    cuts = {"validation": (validation, test), "test": (test, end + timedelta(days=1))}
    for role, (since, until) in cuts.items():
        seen = ordered[ordered["time"] < since].groupby("user")["row"].agg(list).to_dict()
        later = ordered[(ordered["time"] >= since) & (ordered["time"] < until)]
        expected = [
            (user, seen.get(user, []), list(dict.fromkeys(part["row"])), part["second"].iloc[0])
            for user, part in later.groupby("user")
        ]
        found = rows(tmp_path / "e" / f"{role}.parquet", "u", "history", "target", "time")
        assert found == expected


def test_sequences_of_a_later_window_start_with_the_event_before_it(
    engine: Engine, split: Split, catalogue: Catalogue, tmp_path: Path
) -> None:
    """So that the first event of the window can be learned; requests keep the whole history."""
    since = datetime(1970, 1, 1, 0, 0, 6)
    write_examples(engine, split, catalogue, tmp_path / "e", since=since)
    assert rows(tmp_path / "e" / "train.parquet", "u", "history", "history_time") == [
        (USERS[3], [ITEMS["b"], ITEMS["a"]], [5, 6]),
        (USERS[7], [ITEMS["a"], ITEMS["b"]], [10, 20]),
    ]
    write_examples(engine, split, catalogue, tmp_path / "later", since=since.replace(second=11))
    assert rows(tmp_path / "later" / "train.parquet", "u", "history_time") == [(USERS[7], [10, 20])]
    whole = rows(tmp_path / "e" / "test.parquet", "u", "history")
    assert rows(tmp_path / "later" / "test.parquet", "u", "history") == whole


def test_events_of_a_later_window_keep_their_histories(
    engine: Engine, split: Split, catalogue: Catalogue, tmp_path: Path
) -> None:
    since = datetime(1970, 1, 1, 0, 0, 6)
    write_examples(engine, split, catalogue, tmp_path / "e", rows_of=EVENTS_BEFORE, since=since)
    assert sorted(rows(tmp_path / "e" / "train.parquet", "time", "target", "history")) == [
        (6, ITEMS["a"], [ITEMS["b"]]),
        (10, ITEMS["a"], []),
        (20, ITEMS["b"], [ITEMS["a"]]),
    ]
    # what baselines learn from, and what may be recommended, is the whole training part
    assert len(rows(tmp_path / "e" / "interactions.parquet", "user")) == 5
