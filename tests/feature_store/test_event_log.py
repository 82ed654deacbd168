"""The log: what was appended comes back, in an order and with a fingerprint that stay."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.schema import Feature, Schema

SCHEMA = Schema(
    user="u",
    item="i",
    label="y",
    features=(
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item"),
        Feature(name="y", kind="dense", side="context", dtype="float32"),
    ),
)


def events(days: list[int], user: int = 1) -> pa.Table:
    times = [datetime(2024, 1, 1) + timedelta(days=day) for day in days]
    labels = [float(day) for day in days]
    return pa.table({"u": [user] * len(days), "i": ["a"] * len(days), "time": times, "y": labels})


def test_events_come_back_in_time_order_and_positions_keep_the_order_of_appends(
    tmp_path: Path,
) -> None:
    log = EventLog.create(tmp_path / "log", SCHEMA)
    assert log.append(events([3, 1, 1])) == 3
    log.append(events([0], user=2))
    assert log.num_rows == 4 and EventLog.open(tmp_path / "log").schema == SCHEMA
    first, second = (pq.read_table(path) for path in log.files)
    assert first["y"].to_pylist() == [1.0, 1.0, 3.0]
    assert first["position"].to_pylist() == [1, 2, 0]
    assert second["position"].to_pylist() == [3]


def test_the_last_event_before_a_moment_is_told_by_type(tmp_path: Path) -> None:
    """Of a file that goes beyond the moment, and of one that came later; the row group of the
    moment itself has none of the type."""
    typed = SCHEMA.model_copy(
        update={
            "event_type": "kind",
            "features": (*SCHEMA.features, Feature(name="kind", kind="id", side="context")),
        }
    )
    log = EventLog.create(tmp_path / "log", typed)
    assert log.last_before(datetime(2024, 1, 9)) is None
    for days, kinds in (([1, 2, 6], ["buy", "see", "buy"]), ([0, 3], ["buy", "see"])):
        log.append(events(days).append_column("kind", pa.array(kinds)))
    fifth = datetime(2024, 1, 5)
    assert log.last_before(fifth) == datetime(2024, 1, 4)
    assert log.last_before(fifth, ("see",)) == datetime(2024, 1, 4)
    assert log.last_before(fifth, ("buy",)) == datetime(2024, 1, 2)
    assert log.last_before(datetime(2024, 1, 4)) == datetime(2024, 1, 3)
    assert log.last_before(datetime(2024, 1, 1), ("buy",)) is None


def test_a_row_that_does_not_fit_refuses_the_append_and_leaves_nothing(tmp_path: Path) -> None:
    log = EventLog.create(tmp_path / "log", SCHEMA)
    bad = events([1, 2]).set_column(0, "u", pa.array(["1", "x"]))
    with pytest.raises(DataError, match=r"row 1, column 'u': 'x' is not an integer"):
        log.append(bad)
    assert list((tmp_path / "log" / "events").iterdir()) == []
    assert log.append(events([])) == 0 and log.files == []


def test_row_groups_are_found_by_day(tmp_path: Path) -> None:
    log = EventLog.create(tmp_path / "log", SCHEMA)
    log.append(events([0, 1]))
    log.append(events([5, 6]))
    assert [group.rows for group in log.row_groups()] == [2, 2]
    assert len(log.row_groups(first=date(2024, 1, 3))) == 1
    assert len(log.row_groups(last=date(2024, 1, 2))) == 1
    assert log.row_groups(date(2024, 1, 3), date(2024, 1, 5)) == []


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    logs = [EventLog.create(tmp_path / name, SCHEMA) for name in "abc"]
    for log, days in zip(logs, ([1, 2], [1, 2], [1, 3]), strict=True):
        log.append(events(days))
    assert logs[0].fingerprint == logs[1].fingerprint != logs[2].fingerprint


def test_a_log_is_neither_overwritten_nor_invented(tmp_path: Path) -> None:
    EventLog.create(tmp_path / "log", SCHEMA)
    with pytest.raises(DataError, match="already holds a log"):
        EventLog.create(tmp_path / "log", SCHEMA)
    with pytest.raises(DataError, match="not found"):
        EventLog.open(tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["position", "history", "target", "time", "train_events"])
def test_names_that_examples_use_are_no_features(name: str) -> None:
    with pytest.raises(ValidationError, match="rename the feature"):
        Feature(name=name, kind="dense", side="context", dtype="float32")
