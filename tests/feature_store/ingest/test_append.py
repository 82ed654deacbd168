"""Days that follow one another: late and repeated events, and a log that stays as it is."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import feature_store.ingest.appending as module
from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest import Appended, IngestReport, append, ingest
from feature_store.sources import ParquetLog

DAY = datetime(2024, 3, 1)


def at(day: int, hour: float = 0.0) -> datetime:
    return DAY + timedelta(days=day, hours=hour)


def events(*rows: tuple[Any, ...]) -> pa.Table:
    """Rows of user, item, time and price."""
    names, columns = ("user", "item", "time", "price"), zip(*rows, strict=True)
    table = pa.table(dict(zip(names, map(list, columns), strict=True)))
    return table.set_column(0, "user", table["user"].cast(pa.string()))


def source(path: Path, table: pa.Table, **options: Any) -> ParquetLog:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    columns = {"user": "user", "item": "item", "time": "time", "price": "price"}
    return ParquetLog(path=str(path), columns=columns, **options)


FIRST = events(
    ("ann", "tea", at(0, 8), 3.0), ("bob", "jam", at(0, 9), None), ("ann", "jam", at(1, 9), 2.0)
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    ingest(source(tmp_path / "raw" / "first.parquet", FIRST), tmp_path / "store")
    return tmp_path / "store"


def log_of(store: Path) -> list[tuple[Any, ...]]:
    tables = [pq.read_table(str(path)) for path in EventLog.open(store).files]
    names = ["position", "user", "item", "time", "price"]
    return [tuple(row[n] for n in names) for table in tables for row in table.to_pylist()]


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (store / "events").iterdir()}


def test_a_day_joins_the_log_without_what_is_there_and_nothing_else_changes(
    store: Path, tmp_path: Path
) -> None:
    before, held = contents(store), log_of(store)
    day = events(
        ("bob", "jam", at(0, 9), None),  # in the log already, with a price that nobody knows
        ("cat", "tea", at(2, 1), 3.0),
        ("bob", "tea", at(0, 23), 3.0),  # late
        ("ann", "jam", at(1, 9), 2.5),  # another price: another event
    )
    done = append(source(tmp_path / "raw" / "day.parquet", day), store)
    assert (done.events.read, done.events.stored, done.repeated, done.late) == (4, 3, 1, 1)
    assert done.compared == 3  # of the days that came
    assert (done.first, done.last) == (at(0, 23), at(2, 1))
    after = contents(store)
    assert {name: after[name] for name in before} == before and len(after) == 2
    assert log_of(store) == [
        *held,
        (4, "bob", "tea", at(0, 23), 3.0),
        (5, "ann", "jam", at(1, 9), 2.5),
        (3, "cat", "tea", at(2, 1), 3.0),
    ]
    report = IngestReport.load(store)
    assert report.events.stored == EventLog.open(store).num_rows == 6
    assert report.log_fingerprint == EventLog.open(store).fingerprint
    assert report.appended == (done,)


def test_what_was_appended_is_neither_appended_nor_ingested_again(
    store: Path, tmp_path: Path
) -> None:
    day = source(tmp_path / "raw" / "day.parquet", events(("cat", "tea", at(2), 3.0)))
    done = append(day, store)
    before = contents(store)
    assert append(day, store) == done
    again = source(tmp_path / "raw" / "copy.parquet", events(*[("cat", "tea", at(2), 3.0)] * 2))
    other = append(again, store)  # two equal rows, of which the log holds one
    assert (other.events.stored, other.repeated) == (1, 1)
    assert append(source(tmp_path / "raw" / "first.parquet", FIRST), store).events.stored == 0
    assert ingest(day, store).events.stored == 5  # is there already: nothing is ingested
    assert {name: contents(store)[name] for name in before} == before


def test_only_the_days_that_came_are_compared(tmp_path: Path) -> None:
    """One event a day for 40 days, one file each; then a day, and one event 30 days late."""
    store = tmp_path / "store"
    ingest(source(tmp_path / "raw" / "0.parquet", events(("ann", "i0", at(0), 1.0))), store)
    log = EventLog.open(store)
    for day in range(1, 40):
        log.append(events(("ann", f"i{day}", at(day), 1.0)))
    report = IngestReport.load(store)
    known = report.events.model_copy(update={"stored": log.num_rows})
    report.model_copy(update={"events": known}).save(store)
    new = events(("ann", "late", at(10, 1), 1.0), ("ann", "new", at(40), 1.0))
    done = append(source(tmp_path / "raw" / "new.parquet", new), store)
    assert done.compared == 1 and done.late == 1 and done.events.stored == 2


UNIQUE = {"unique": ("user", "item")}


@pytest.mark.parametrize("quarantine", [False, True])
def test_the_same_key_with_other_content_is_a_bad_row(tmp_path: Path, quarantine: bool) -> None:
    store = tmp_path / "store"
    ingest(source(tmp_path / "raw" / "first.parquet", FIRST, **UNIQUE), store)
    before = contents(store)
    day = events(
        ("cat", "tea", at(2), 3.0),
        ("cat", "tea", at(2), 3.0),  # sent twice
        ("cat", "tea", at(3), 3.0),  # the same once more, and later
        ("ann", "tea", at(0, 8), 3.0),  # in the log
        ("ann", "jam", at(1, 9), 9.0),  # in the log, at another price
    )
    part = source(tmp_path / "raw" / "day.parquet", day, **UNIQUE)
    if not quarantine:
        told = r"day\.parquet:3, column 'user, item': 'cat, tea' repeats an earlier row \(2 bad"
        with pytest.raises(DataError, match=told):
            append(part, store)
        assert contents(store) == before and IngestReport.load(store).appended == ()
        return
    done = append(part, store, quarantine=True)
    assert (done.events.stored, done.repeated, done.events.quarantined) == (1, 2, 2)
    assert pq.read_table(store / "quarantine_000001.parquet")["line"].to_pylist() == [3, 5]
    assert not (store / "quarantine.parquet").exists()


def test_a_stopped_append_is_gone_on_with(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the files of one append: again, and the log is as of an undisturbed one."""
    rows = [("ann", f"i{n % 3}", at(2), 1.0) for n in range(7)]  # equal ones among them
    day = source(tmp_path / "raw" / "day.parquet", events(*rows))
    monkeypatch.setattr(module, "APPEND_ROWS", 2)
    write, calls = EventLog.write, []

    def killed(log: EventLog, *arguments: Any) -> None:
        if log.folder == store and calls.append(1) is None and len(calls) == 3:
            raise KeyboardInterrupt
        write(log, *arguments)

    def killed_behind(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(EventLog, "write", killed)
        append(day, store)
    assert len(contents(store)) == 3 and not [*store.glob(".*")]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(IngestReport, "save", killed_behind)  # all of it is written
        append(day, store)
    done = append(day, store)
    assert (done.events.stored, done.repeated, done.compared, done.late) == (7, 0, 0, 0)
    assert (done.first, done.last) == (at(2), at(2))
    assert IngestReport.load(store).events.stored == 10
    assert [row[2] for row in log_of(store)[3:]] == [f"i{n % 3}" for n in range(7)]
    assert [row[0] for row in log_of(store)] == list(range(10))


def test_items_are_known_anew_where_they_stand_and_new_ones_follow(tmp_path: Path) -> None:
    items = tmp_path / "items.parquet"

    def told(day: int, **titles: str) -> Appended | IngestReport:
        pq.write_table(pa.table({"item": list(titles), "title": list(titles.values())}), items)
        name = tmp_path / "raw" / f"{day}.parquet"
        table = events(("ann", "tea", at(day), 1.0))
        part = source(name, table, items=str(items), title="title")
        return (append if day else ingest)(part, tmp_path / "store")

    told(0, tea="Tea", jam="Jam")
    done = told(1, rye="Rye", jam="Plum jam")
    assert isinstance(done, Appended) and done.new_items == 1
    schema = EventLog.open(tmp_path / "store").schema
    rows = Catalogue(tmp_path / "store", schema).read("item").to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("tea", "Tea"), ("jam", "Plum jam"), ("rye", "Rye"),
    ]  # fmt: skip
    assert IngestReport.load(tmp_path / "store").items.stored == 3


def test_what_cannot_be_appended_is_named(store: Path, tmp_path: Path) -> None:
    bad = source(tmp_path / "raw" / "bad.parquet", events((None, "tea", at(2), 1.0)))
    before = contents(store)
    with pytest.raises(DataError, match=r"column 'user': is null"):
        append(bad, store)
    assert append(bad, store, quarantine=True).events.stored == 0
    more = source(tmp_path / "raw" / "more.parquet", FIRST.append_column("x", [[1, 2, 3]]))
    wider = more.model_copy(update={"features": ("x",)})
    with pytest.raises(DataError, match=r"columns of the source differ from the log's \(\+x\)"):
        append(wider, store)
    with pytest.raises(DataError, match=r"not found: is this a store"):
        append(more, tmp_path / "nowhere")
    assert contents(store) == before
