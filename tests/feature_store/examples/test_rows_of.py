"""What a row may be made of: histories by event type, labels without their own page, texts."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import ConfigError
from feature_store.event_log import EventLog
from feature_store.examples import ExamplesSummary, RowsOf, files_of, write_examples
from feature_store.labels import LabelConfig
from feature_store.protocols import GlobalTime, LeaveOneOut, UserHoldout
from feature_store.schema import Feature, Schema
from feature_store.splits import make_split

SCHEMA = Schema(
    user="u",
    item="i",
    label="clicked",
    event_type="kind",
    title="title",
    features=(
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item"),
        Feature(name="title", kind="text", side="item"),
        Feature(name="kind", kind="id", side="context"),
        Feature(name="clicked", kind="dense", side="context", dtype="float32"),
    ),
)
ITEMS = {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}
# user, item, second, kind: pages of impressions, each of which shares one second
EVENTS = [
    (7, "a", 10, "click"),
    (7, "b", 10, "impression"),
    (7, "c", 10, "impression"),
    (7, "d", 20, None),  # its type was not written down
    (7, "e", 20, "purchase"),
    (7, "a", 30, "purchase"),
    (8, "f", 30, "click"),
    (7, "b", 40, "click"),
    (7, "c", 40, "impression"),
    (7, "f", 50, "click"),
]
CUTS = GlobalTime(
    validation_start=datetime.fromtimestamp(40, UTC), test_start=datetime.fromtimestamp(50, UTC)
)
CLICKED = ("click", "purchase")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineConfig(threads=1))


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    made = EventLog.create(tmp_path / "log", SCHEMA)
    users, items, at, kinds = zip(*EVENTS, strict=True)
    times = [datetime.fromtimestamp(second, UTC) for second in at]
    labels = [float(kind in CLICKED) for kind in kinds]
    made.append(pa.table({"u": users, "i": items, "time": times, "kind": kinds, "clicked": labels}))
    titles = {"i": ["b", "a", "z"], "title": ["A book", None, "Never sold"]}
    Catalogue(made.folder, SCHEMA).write("item", pa.table(titles))
    return made


def write(
    engine: Engine, log: EventLog, folder: Path, rows_of: RowsOf, **options: Any
) -> dict[str, list[dict[str, Any]]]:
    """The rows of every role."""
    labels = LabelConfig() if rows_of.labels else None
    split = make_split(engine, log, CUTS, labels)
    catalogue = Catalogue(log.folder, SCHEMA)
    summary = write_examples(engine, split, catalogue, folder, rows_of=rows_of, **options)
    assert ExamplesSummary.load(folder) == summary
    return {
        role: pq.read_table(folder / f"{role}.parquet").to_pylist()
        for role in ("train", "validation", "test")
    }


def letters(rows: list[int]) -> str:
    return "".join("?abcdefz"[row] for row in rows)


def test_labelled_rows_know_nothing_of_their_own_second(
    engine: Engine, log: EventLog, tmp_path: Path
) -> None:
    rows_of = RowsOf(per="event", labels=True)
    roles = write(engine, log, tmp_path / "e", rows_of)
    shown = [(letters([row["i"]]), letters(row["history"])) for row in roles["train"]]
    assert shown == [
        ("a", ""), ("b", ""), ("c", ""),
        ("d", "abc"), ("e", "abc"),
        ("a", "abcde"), ("f", ""),
    ]  # fmt: skip
    assert [row["history_time"] for row in roles["train"]][3] == [10, 10, 10]
    assert [row["label"] for row in roles["train"]] == [1, 0, 0, 0, 1, 1, 1]
    # later roles see what the protocol shows them: not each other's page, nor the other's window
    assert [letters(row["history"]) for row in roles["validation"]] == ["abcdea"] * 2
    assert [letters(row["history"]) for row in roles["test"]] == ["abcdeabc"]


@pytest.mark.parametrize(
    ("delay", "of_train"),
    [
        (1, ["", "", "", "abc", "abc", "abcde", ""]),
        (10, ["", "", "", "abc", "abc", "abcde", ""]),
        (11, ["", "", "", "", "", "abc", ""]),
        (20, ["", "", "", "", "", "abc", ""]),
        (21, ["", "", "", "", "", "", ""]),
    ],
)
def test_histories_of_training_end_so_long_before_the_event(
    engine: Engine, log: EventLog, tmp_path: Path, delay: int, of_train: list[str]
) -> None:
    rows_of = RowsOf(per="event", labels=True, delay=delay)
    roles = write(engine, log, tmp_path / "e", rows_of)
    assert [letters(row["history"]) for row in roles["train"]] == of_train
    # others are asked when they are asked
    assert [letters(row["history"]) for row in roles["validation"]] == ["abcdea"] * 2
    assert [letters(row["history"]) for row in roles["test"]] == ["abcdeabc"]


def test_histories_hold_what_has_no_label_and_positives_alone_if_asked(
    engine: Engine, tmp_path: Path
) -> None:
    """A look has no label: nothing is asked of it, and it tells of the user all the same."""
    log = EventLog.create(tmp_path / "looks", SCHEMA)
    at = [datetime.fromtimestamp(second, UTC) for second in (1, 2, 3, 4, 45, 55)]
    kinds = ["look", "click", "impression", "look", "click", "click"]
    labels = [None, 1.0, 0.0, None, 1.0, 1.0]
    columns = {"u": [7] * 6, "i": list("abcdef"), "time": at, "kind": kinds, "clicked": labels}
    log.append(pa.table(columns))
    rows_of = RowsOf(
        "event", {"history": (), "clicks": (), "looks": ("look",)}, True, positives=("clicks",)
    )
    roles = write(engine, log, tmp_path / "e", rows_of)
    asked = [row for role in roles.values() for row in role]
    assert [letters([row["i"]]) for row in asked] == ["b", "c", "e", "f"]
    assert [letters(row["history"]) for row in asked] == ["a", "ab", "abcd", "abcde"]
    assert [letters(row["clicks"]) for row in asked] == ["", "b", "b", "be"]
    assert [letters(row["looks"]) for row in asked] == ["a", "a", "ad", "ad"]
    serving = pq.read_table(tmp_path / "e" / "serving.parquet").to_pylist()
    assert serving[0]["clicks"] == list("bef")
    with pytest.raises(ConfigError, match="'Kind' has the name of a feature"):
        write(engine, log, tmp_path / "f", RowsOf("event", {"Kind": ()}, True))


def test_unlabelled_rows_hold_the_events_before_them_in_the_one_order(
    engine: Engine, log: EventLog, tmp_path: Path
) -> None:
    roles = write(engine, log, tmp_path / "e", RowsOf(per="event"), history_length=3)
    shown = [(letters([row["target"]]), letters(row["history"])) for row in roles["train"]]
    assert sorted(shown) == [
        ("a", ""), ("a", "cde"), ("b", "a"), ("c", "ab"), ("d", "abc"), ("e", "bcd"), ("f", "")
    ]  # fmt: skip
    assert [letters(row["history"]) for row in roles["test"]] == ["abcdeabc"]  # whole


@pytest.mark.parametrize("labels", [False, True])
def test_histories_of_several_event_types_lie_beside_each_other(
    labels: bool, engine: Engine, log: EventLog, tmp_path: Path
) -> None:
    histories = {"history": (), "clicks": CLICKED, "bought": ("purchase",)}
    roles = write(engine, log, tmp_path / "e", RowsOf("event", histories, labels))
    (last,) = (row for row in roles["train"] if row["time"] == 30 and row["history"])
    assert letters(last["clicks"]) == "ae" and last["clicks_time"] == [10, 20]
    assert letters(last["bought"]) == "e" and last["bought_time"] == [20]
    (asked,) = roles["test"]
    assert letters(asked["clicks"]) == "aeab" and letters(asked["bought"]) == "ea"
    serving = pq.read_table(tmp_path / "e" / "serving.parquet").to_pylist()
    assert serving[0]["clicks"] == list("aeabf") and serving[0]["bought_time"] == [20, 30]
    assert serving[1] == {
        "u": 8, "history": ["f"], "history_time": [30],
        "clicks": ["f"], "clicks_time": [30], "bought": [], "bought_time": [],
    }  # fmt: skip


def test_event_types_of_a_log_that_tells_none_are_refused(engine: Engine, tmp_path: Path) -> None:
    bare = EventLog.create(
        tmp_path / "bare", Schema(user="u", item="i", features=SCHEMA.features[:2])
    )
    times = [datetime.fromtimestamp(second, UTC) for second in range(4)]
    bare.append(pa.table({"u": [1] * 4, "i": list("abcd"), "time": times}))
    split = make_split(engine, bare, LeaveOneOut())
    rows_of = RowsOf(histories={"history": (), "bought": ("purchase",)})
    with pytest.raises(ConfigError, match="'bought' holds events of certain types"):
        write_examples(
            engine, split, Catalogue(bare.folder, bare.schema), tmp_path / "e", rows_of=rows_of
        )


def test_texts_lie_at_the_rows_of_their_items(
    engine: Engine, log: EventLog, tmp_path: Path
) -> None:
    write(engine, log, tmp_path / "with", RowsOf(texts=True))
    texts = pq.read_table(tmp_path / "with" / "item_texts.parquet")
    assert texts["title"].to_pylist() == [None, None, "A book", *[None] * 4, "Never sold"]
    write(engine, log, tmp_path / "without", RowsOf())
    assert not (tmp_path / "without" / "item_texts.parquet").exists()


def test_rows_may_lie_in_several_files_in_their_order(
    engine: Engine, log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(engine, log, tmp_path / "one", RowsOf(per="event"))["train"]
    monkeypatch.setattr("feature_store.examples.write._EVENTS_A_GROUP", 2)
    monkeypatch.setattr("feature_store.examples.write._EVENTS_A_FILE", 4)
    assert write(engine, log, tmp_path / "two", RowsOf(per="event"))["train"] == whole
    files = files_of(tmp_path / "two", "train")
    assert [path.name for path in files] == ["00000.parquet", "00001.parquet"]
    assert [pq.read_metadata(path).num_rows for path in files] == [4, 3]
    assert [pq.read_metadata(path).num_row_groups for path in files] == [2, 2]


def test_a_value_goes_through_json_and_contradictions_are_refused() -> None:
    rows_of = RowsOf("event", {"history": (), "bought": ("purchase",)}, labels=True, texts=True)
    assert RowsOf.from_dict(asdict(rows_of)) == rows_of
    with pytest.raises(ConfigError, match="delayed in rows with labels"):
        RowsOf(per="event", delay=60)
    with pytest.raises(ConfigError, match="labels are of events"):
        RowsOf(per="user", labels=True)
    with pytest.raises(ConfigError, match="need the list 'history'"):
        RowsOf(histories={"bought": ("purchase",)})


def test_each_event_of_held_out_users_is_asked_for_and_knows_those_before_it(
    engine: Engine, tmp_path: Path
) -> None:
    """DIN's MovieLens: users are held out whole, their earlier seconds are history."""
    log = EventLog.create(tmp_path / "log", SCHEMA)
    rows = [(user, "abcd"[n], n) for user in range(30) for n in range(4)]
    users, items, seconds = zip(*rows, strict=True)
    log.append(
        pa.table(
            {
                "u": users,
                "i": items,
                "time": [datetime.fromtimestamp(second, UTC) for second in seconds],
                "kind": ["click"] * len(rows),
                "clicked": [float(second % 2) for second in seconds],
            }
        )
    )
    protocol = UserHoldout(input=0, validation=0.3, test=0.3)
    assert protocol.short_name == "user_holdout-each"
    split = make_split(engine, log, protocol, LabelConfig())
    assert set(split.counts) == {"train", "validation", "test"}
    rows_of = RowsOf(
        per="event", histories={"past": (), "liked": ()}, positives=("liked",), labels=True
    )
    write_examples(engine, split, Catalogue(log.folder, SCHEMA), tmp_path / "out", rows_of=rows_of)
    known = set()
    for role in ("train", "validation", "test"):
        table = pa.concat_tables(map(pq.read_table, files_of(tmp_path / "out", role)))
        assert not known & set(table["u"].to_pylist())
        known |= set(table["u"].to_pylist())
        for item, past, liked in zip(
            *(table[n].to_pylist() for n in ("i", "past", "liked")), strict=True
        ):
            assert past == list(range(1, item))
            assert liked == [row for row in (2, 4) if row < item]
    assert len(known) == 30


def test_targets_of_training_lie_in_no_order(engine: Engine, tmp_path: Path) -> None:
    """A reader shuffles a few row groups at a time: of a large log in the order of time, a batch
    would hold what was sold in some weeks. Rows with labels stay in the order of time."""
    log, count = EventLog.create(tmp_path / "log", SCHEMA), 400
    at = [datetime.fromtimestamp(second, UTC) for second in range(count)]
    users, items = [row % 4 for row in range(count)], [f"i{row % 7}" for row in range(count)]
    kinds, clicked = ["click"] * count, [1.0] * count
    log.append(pa.table({"u": users, "i": items, "time": at, "kind": kinds, "clicked": clicked}))
    found = {}
    for labels in (False, True):
        rows_of, folder = RowsOf(per="event", labels=labels), tmp_path / f"labels_{labels}"
        split = make_split(engine, log, LeaveOneOut())
        write_examples(engine, split, Catalogue(log.folder, SCHEMA), folder, rows_of=rows_of)
        found[labels] = pq.read_table(folder / "train.parquet")["time"].to_pylist()
    assert sorted(found[False]) == found[True] == list(range(count - 8))
    for half in (found[False][: count // 2], found[False][count // 2 :]):
        assert abs(sum(half) / len(half) - (count - 8) / 2) < 40
