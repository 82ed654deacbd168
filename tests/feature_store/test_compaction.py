"""Small files of a log become few, and nothing else changes, whatever stops it."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.compaction import compact
from feature_store.durable import write_parquet
from feature_store.event_log import EventLog
from feature_store.parquet import read_parquet
from feature_store.schema import Feature, Schema

SCHEMA = Schema(
    user="u",
    item="i",
    features=(
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item"),
    ),
)


def append(log: EventLog, days: list[int]) -> None:
    times = [datetime(2024, 1, 1) + timedelta(days=day) for day in days]
    log.append(pa.table({"u": days, "i": [f"item {day}" for day in days], "time": times}))


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """Twelve appends of two late days each."""
    log = EventLog.create(tmp_path / "log", SCHEMA)
    for number in range(12):
        append(log, [number + 3, number])
    return log


def events(log: EventLog) -> list[dict[str, object]]:
    tables = [read_parquet(path) for path in log.files]
    return pa.concat_tables(tables).sort_by("position").to_pylist()


def test_the_events_and_the_fingerprint_stay(log: EventLog) -> None:
    expected, fingerprint, prints = events(log), log.fingerprint, log.fingerprints
    assert compact(log, file_rows=10) == (12, 3)
    assert [path.name for path in log.files] == [
        "2024-01-01_2024-01-08_000000-000004.parquet",
        "2024-01-06_2024-01-13_000005-000009.parquet",
        "2024-01-11_2024-01-15_000010-000011.parquet",
    ]
    assert len(list((log.folder / "events").iterdir())) == 3
    assert events(log) == expected and log.num_rows == 24
    assert log.fingerprint == fingerprint
    assert log.fingerprints == [prints[0], prints[5], prints[10], prints[12]]
    first = read_parquet(log.files[0])
    assert first["u"].to_pylist() == [0, 1, 2, 3, 3, 4, 4, 5, 6, 7]  # by time, then by append
    assert first["position"].to_pylist() == [1, 3, 5, 0, 7, 2, 9, 4, 6, 8]


def test_it_goes_on_growing_and_is_compacted_again(log: EventLog, tmp_path: Path) -> None:
    other = EventLog.create(tmp_path / "other", SCHEMA)
    for number in range(12):
        append(other, [number + 3, number])
    compact(log, file_rows=10)
    for each in (log, other):
        append(each, [40])
    assert compact(log, file_rows=10) == (4, 3)  # whole files stay as they are
    assert compact(log, file_rows=10) == (3, 3)
    assert events(log) == events(other) and log.fingerprint == other.fingerprint


@pytest.mark.parametrize("fault", [OSError("full"), KeyboardInterrupt()])
@pytest.mark.parametrize("survives", [0, 1, 3])
def test_whatever_stops_it_the_log_is_whole(
    log: EventLog, monkeypatch: pytest.MonkeyPatch, survives: int, fault: BaseException
) -> None:
    expected, fingerprint, removed = events(log), log.fingerprint, []

    def unlink(path: Path) -> None:
        if len(removed) == survives:
            raise fault
        removed.append(path)
        original(path)

    original = Path.unlink
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "unlink", lambda path, **_: unlink(path) if path.suffix == ".parquet" else None
        )
        with pytest.raises(type(fault)):
            compact(log, file_rows=100)
    assert len(removed) == survives
    assert events(log) == expected and log.fingerprint == fingerprint
    append(log, [50])
    assert log.num_rows == 25
    compact(log, file_rows=100)
    assert len(list((log.folder / "events").iterdir())) == 1


def test_columns_that_nearly_ascend_are_written_as_differences(log: EventLog) -> None:
    group = pq.read_metadata(log.files[0]).row_group(0)
    encodings = {
        group.column(place).path_in_schema: group.column(place).encodings for place in range(4)
    }
    for name, chosen in {"time": "DELTA_BINARY_PACKED", "i": "RLE_DICTIONARY"}.items():
        assert chosen in encodings[name]
    assert "DELTA_BINARY_PACKED" in encodings["position"]


def test_differences_halve_a_log_in_order_of_time(tmp_path: Path) -> None:
    table = pa.table({"position": range(10_000), "tags": [[7, 8]] * 10_000})
    write_parquet(table, tmp_path / "plain.parquet")
    write_parquet(table, tmp_path / "delta.parquet", delta=["position"])
    assert read_parquet(tmp_path / "delta.parquet").equals(table)
    plain, delta = (tmp_path / f"{name}.parquet" for name in ("plain", "delta"))
    assert delta.stat().st_size < plain.stat().st_size / 2
    tags = pq.read_metadata(delta).row_group(0).column(1)
    assert "RLE_DICTIONARY" in tags.encodings  # in lists, too
