"""What is asked of days, types and columns reaches the files: the rest of them is not read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.engine import Engine
from feature_store.event_log import EventLog
from feature_store.schema import Feature, Schema

SCHEMA = Schema(
    user="user",
    item="item",
    event_type="kind",
    features=(
        Feature(name="user", kind="id", side="user", dtype="int64"),
        Feature(name="item", kind="id", side="item", dtype="int64"),
        Feature(name="kind", kind="id", side="context"),
    ),
)
EXPRESSIONS: dict[str, Callable[[Any], Any]] = {
    "a day": lambda rows: rows.filter(rows["time"] < ibis.timestamp(datetime(2024, 1, 2))),
    "a type": lambda rows: rows.filter(rows["kind"] == "buy"),
    "one of several types": lambda rows: rows.filter(rows["kind"].isin(("buy", "add"))),
}


def damage(path: Path, columns: set[str]) -> None:
    """Overwrite all pages of some columns of the only row group."""
    data = bytearray(path.read_bytes())
    group = pq.read_metadata(path).row_group(0)
    for number in range(group.num_columns):
        column = group.column(number)
        if column.path_in_schema in columns:
            start = column.dictionary_page_offset or column.data_page_offset
            data[start : start + column.total_compressed_size] = b"\xff" * (
                column.total_compressed_size
            )
    path.write_bytes(data)


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """Users 0 to 99 bought on the first day, and looked on the second."""
    log = EventLog.create(tmp_path / "log", SCHEMA)
    users = list(range(100))
    for day, kind in ((1, "buy"), (2, "see")):
        times = [datetime(2024, 1, day)] * 100
        log.append(pa.table({"user": users, "item": users, "kind": [kind] * 100, "time": times}))
    return log


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_row_groups_of_other_days_and_types_are_not_read(log: EventLog, name: str) -> None:
    damage(log.files[1], {"user", "item", "kind", "time", "position"})
    with Engine() as engine:
        rows = EXPRESSIONS[name](engine.scan(log.files)).select("user")
        assert sorted(engine.collect(rows)["user"].to_pylist()) == list(range(100))


def test_columns_that_are_not_asked_are_not_read(log: EventLog) -> None:
    for path in log.files:
        damage(path, {"item", "kind", "position"})
    with Engine() as engine:
        assert engine.collect(engine.scan(log.files).select("user")).num_rows == 200
