"""Ingest: everything read is stored or named, and a store appears whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import feature_store.ingest.store as module
from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest import IngestReport, ingest
from feature_store.schema import Feature, Schema
from feature_store.sources.base import RawChunk, Source
from feature_store.sources.files import Files
from feature_store.sources.text_table import TextFormat, read_text


class Shop(Source):
    """`user,item,time,rating` without header, and optionally items and users."""

    source: Literal["shop"] = "shop"
    path: Path
    block: int = 1 << 20

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        return Schema(
            user="user",
            item="item",
            label="rating",
            unique=("user", "item"),
            features=(
                Feature(name="user", kind="id", side="user", dtype="int64"),
                Feature(name="item", kind="id", side="item"),
                Feature(name="name", kind="text", side="item"),
                Feature(name="rating", kind="dense", side="context", dtype="float32"),
            ),
        )

    def read_events(self) -> Iterator[RawChunk]:
        return self._read("events.txt", "user", "item", "time", "rating")

    def read_items(self) -> Iterator[RawChunk]:
        if "items.txt" in Files(self.path):
            yield from self._read("items.txt", "item", "name")

    def fingerprint(self) -> str:
        return self._digest(Files(self.path).identity(["events.txt"]), without=frozenset({"path"}))

    def _read(self, name: str, *columns: str) -> Iterator[RawChunk]:
        with Files(self.path).open(name) as stream:
            yield from read_text(stream, name, TextFormat(columns), block_bytes=self.block)


GOOD = "1,a,100,5\n1,b,101,4\n2,a,99,3\n"


def shop(folder: Path, events: str = GOOD, items: str | None = None, **options: int) -> Shop:
    folder.mkdir(exist_ok=True)
    (folder / "events.txt").write_text(events)
    if items is not None:
        (folder / "items.txt").write_text(items)
    return Shop(path=folder, **options)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_what_is_read_is_stored(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    source = shop(tmp_path / "raw", items="a,Apple\nc,Cherry\n")
    report = ingest(
        source, tmp_path / "store", progress=lambda rows, size: seen.append((rows, size))
    )
    log = EventLog.open(tmp_path / "store")
    events = pq.read_table(log.files[0]).sort_by("position").to_pydict()
    assert events["user"] == [1, 1, 2] and events["rating"] == [5, 4, 3]
    names = Catalogue(tmp_path / "store", log.schema).read("item")["name"].to_pylist()
    assert names == ["Apple", "Cherry"]
    assert report.events.read == report.events.stored == 3
    assert report.events_without_item == 1  # b
    assert report.log_fingerprint == log.fingerprint
    assert IngestReport.load(tmp_path / "store") == report
    assert seen[-1] == (3, len(GOOD) - 1)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (GOOD + "x,c,5,1\n3,d,y,1\n", r"events\.txt:4, column 'user': 'x' is not an integer \(2 b"),
        (GOOD + "3,c,5\n", r"events\.txt:4: 3 columns instead of 4: '3,c,5' \(1 bad row so far\)"),
        (
            GOOD + "\n2,a,7,1\n1,a,8,1\n",
            r"events\.txt:5, column 'user, item': '2, a' repeats .*2 b",
        ),
        (GOOD + "3,c,5,1", r"events\.txt:4: the file ends inside a line"),
        (GOOD + "3,,5,1\n", r"events\.txt:4, column 'item': is null"),
    ],
)
def test_a_bad_row_stops_the_ingest_and_leaves_nothing(
    tmp_path: Path, events: str, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        ingest(shop(tmp_path / "raw", events), tmp_path / "store")
    assert "--quarantine" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists() and hidden(tmp_path) == []


def test_a_clock_that_is_set_back_meanwhile_changes_no_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = iter(range(23, 0, -1))

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls(2024, 1, 1, next(hours), tzinfo=tz)

    monkeypatch.setattr(module, "datetime", Clock)
    report = ingest(shop(tmp_path / "raw"), tmp_path / "store")
    assert 0 <= report.seconds < 60


def test_bad_rows_can_be_set_aside(tmp_path: Path) -> None:
    events = GOOD + "x,c,y,1\n3,c\n\n1,a,200,1\n4,d,300,2\n"
    items = "a,Apple\na,Again\nb,Berry\n"
    report = ingest(shop(tmp_path / "raw", events, items), tmp_path / "store", quarantine=True)
    aside = pq.read_table(tmp_path / "store" / "quarantine.parquet").to_pylist()
    found = [(row["file"], row["line"], row["column"], row["reason"]) for row in aside]
    assert found == [
        ("items.txt", 2, "item", "repeats an earlier row"),
        ("events.txt", 4, "user", "is not an integer"),
        ("events.txt", 5, "", "2 columns instead of 4"),
        ("events.txt", 7, "user, item", "repeats an earlier row"),
    ]
    assert '"y"' in aside[1]["raw"] and '"rating": 1.0' in aside[3]["raw"]
    assert (report.events.read, report.events.stored, report.events.quarantined) == (7, 4, 3)
    assert report.items.quarantined == 1 and report.reasons["repeats an earlier row"] == 2
    stored = pq.read_table(EventLog.open(tmp_path / "store").files[0]).sort_by("position")
    assert stored["rating"].to_pylist() == [5, 4, 3, 2]  # the first of repeats stays
    assert stored["position"].to_pylist() == [0, 1, 2, 3]


def test_lines_of_repeats_are_found_through_files_appends_and_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "APPEND_ROWS", 7)
    lines = [f"{n},a,{1000 - n},1" for n in range(50)]
    lines[20] = ""
    lines[40] = "3,a,5,1"
    source = shop(tmp_path / "raw", "\n".join(lines) + "\n", block=64)
    with pytest.raises(DataError, match=r"events\.txt:41, .* '3, a' repeats"):
        ingest(source, tmp_path / "store")
    report = ingest(source, tmp_path / "store", quarantine=True)
    assert (report.events.read, report.events.stored) == (49, 48)
    files = EventLog.open(tmp_path / "store").files
    positions = np.concatenate([pq.read_table(file)["position"].to_numpy() for file in files])
    assert len(files) > 1 and sorted(positions) == list(range(48))


def test_chunks_of_any_size_make_the_same_log(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "APPEND_ROWS", 16)
    lines = "".join(f"{n % 9},i{n},{n * 7 % 100},{'' if n % 4 else 2}\n" for n in range(100))
    prints = {
        ingest(shop(tmp_path / "raw", lines, block=block), tmp_path / f"{block}").log_fingerprint
        for block in (20, 111, 1 << 20)
    }
    assert len(prints) == 1


def test_a_store_up_to_date_is_left_and_another_is_not_overwritten(tmp_path: Path) -> None:
    store = tmp_path / "store"
    report = ingest(shop(tmp_path / "raw"), store)
    before = store.stat().st_mtime_ns
    assert ingest(shop(tmp_path / "raw"), store) == report
    assert store.stat().st_mtime_ns == before
    other = shop(tmp_path / "raw", GOOD + "7,z,1,1\n")
    with pytest.raises(DataError, match=r"another source .* --replace"):
        ingest(other, store)
    assert EventLog.open(store).num_rows == 3
    assert ingest(other, store, replace=True).events.stored == 4
    assert EventLog.open(store).num_rows == 4 and hidden(tmp_path) == []


def test_odd_names_of_folders_mean_nothing(tmp_path: Path) -> None:
    store = tmp_path / "user=7" / "[a] *"
    report = ingest(shop(tmp_path / "raw", GOOD + "1,a,1,1\n", "a,A\n"), store, quarantine=True)
    assert (report.events.stored, report.events_without_item) == (3, 1)


def test_a_replacement_that_fails_leaves_the_old_store(tmp_path: Path) -> None:
    ingest(shop(tmp_path / "raw"), tmp_path / "store")
    with pytest.raises(DataError):
        ingest(shop(tmp_path / "raw", "broken\n"), tmp_path / "store", replace=True)
    assert EventLog.open(tmp_path / "store").num_rows == 3


def test_a_folder_that_is_no_store_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    assert ingest(shop(tmp_path / "raw"), tmp_path / "store").events.stored == 3  # empty: fine
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(DataError, match="no store"):
        ingest(shop(tmp_path / "raw"), tmp_path / "mine", replace=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize("events", ["\n\n", "x\ny\n"])
def test_without_a_single_event_there_is_no_store(tmp_path: Path, events: str) -> None:
    with pytest.raises(DataError, match=r"no events|none of the 2 events.*events\.txt:1"):
        ingest(shop(tmp_path / "raw", events), tmp_path / "store", quarantine=True)
    assert not (tmp_path / "store").exists()


def test_a_replacement_killed_between_its_renames_is_undone(tmp_path: Path) -> None:
    report = ingest(shop(tmp_path / "raw"), tmp_path / "store")
    (tmp_path / "store").rename(tmp_path / ".store.replaced-123")
    assert ingest(shop(tmp_path / "raw"), tmp_path / "store") == report
    assert hidden(tmp_path) == []


SLOW = """
    import sys, time
    from pathlib import Path
    from feature_store.ingest import ingest
    from feature_store.sources.synthetic import Synthetic

    def slowly(rows, read_bytes):
        print(rows, flush=True)
        time.sleep(60 if rows > 100 else 0)

    ingest(Synthetic(users=50, items=100, clusters=5), Path(sys.argv[1]), progress=slowly)
"""


def test_a_killed_ingest_leaves_no_store_and_does_not_hinder_the_next(tmp_path: Path) -> None:
    from feature_store.sources.synthetic import Synthetic

    source = Synthetic(users=50, items=100, clusters=5)
    command = [sys.executable, "-c", textwrap.dedent(SLOW), str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None and program.stdout.readline()  # it is in the middle
        with pytest.raises(DataError, match="being built by another program"):
            ingest(source, tmp_path / "store")
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
    assert not (tmp_path / "store").exists()
    assert len(hidden(tmp_path)) == 1
    deadline = time.monotonic() + 5
    while True:
        try:
            report = ingest(source, tmp_path / "store")
            break
        except DataError:
            assert time.monotonic() < deadline
    assert EventLog.open(tmp_path / "store").num_rows == report.events.stored
    assert hidden(tmp_path) == []


fields = st.sampled_from(["1", "2", "x", "", "a", "b", "99", "1e9", "-1", "nan", '"', "\u00e9"])
lines = st.lists(st.lists(fields, max_size=5).map(",".join), min_size=1, max_size=20)


@settings(max_examples=40, deadline=None)
@given(lines, st.booleans(), st.integers(8, 200))
def test_broken_text_is_stored_or_named_and_never_lost(
    tmp_path_factory: pytest.TempPathFactory, text: list[str], newline: bool, block: int
) -> None:
    folder = tmp_path_factory.mktemp("wild")
    source = shop(folder / "raw", "\n".join(text) + ("\n" if newline else ""), block=block)
    rows = sum(bool(line) for line in text)
    try:
        report = ingest(source, folder / "store", quarantine=True)
    except DataError as error:
        assert "\n" not in str(error)
        assert not (folder / "store").exists()
        return
    assert report.events.read == rows == report.events.stored + report.events.quarantined
    stored = pa.concat_tables(pq.read_table(f) for f in EventLog.open(folder / "store").files)
    assert stored.num_rows == report.events.stored
    aside = folder / "store" / "quarantine.parquet"
    named = pq.read_table(aside)["line"].to_pylist() if aside.exists() else []
    assert len(named) == len(set(named)) == report.events.quarantined
    positions = np.sort(stored["position"].to_numpy())
    assert positions.tolist() == list(range(report.events.stored))
