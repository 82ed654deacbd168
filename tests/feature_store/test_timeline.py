"""The one order of events: time, then the order of the log."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path

import ibis.expr.types as ir
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.schema import Feature, Schema
from feature_store.timeline import order, rank_from_end, read_events, seconds

SCHEMA = Schema(
    user="u",
    item="i",
    features=(
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item", dtype="int64"),
    ),
)
Log = list[tuple[int, int]]  # (user, second) of each event, in the order of the log

# few users and few seconds: nearly every log holds ties; `stored` is the order of rows on disk
logs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=25).flatmap(
    lambda log: st.tuples(st.just(log), st.permutations(range(len(log))))
)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineConfig(threads=2))


def as_table(engine: Engine, log: Log, stored: list[int]) -> ir.Table:
    """Events whose item is 100 + position, so that items say which event they came from."""
    columns = {
        "u": pa.array([log[p][0] for p in stored]),
        "i": pa.array([100 + p for p in stored]),
        "time": pa.array([log[p][1] * 1_000_000 for p in stored], pa.timestamp("us")),
        "position": pa.array(stored, pa.int64()),
    }
    return engine.table(pa.table(columns))


@settings(max_examples=25, deadline=None)
@given(logs)
def test_ranks_follow_time_then_position(engine: Engine, drawn: tuple[Log, list[int]]) -> None:
    log, stored = drawn
    events = as_table(engine, log, stored)
    expected = {
        user: [100 + p for _, p in sorted((t, p) for p, (u, t) in enumerate(log) if u == user)]
        for user in {u for u, _ in log}
    }
    ranked = engine.collect(events.mutate(rank=rank_from_end(events, SCHEMA))).to_pylist()
    assert len(ranked) == len(log)
    for row in ranked:
        assert expected[row["u"]][-1 - row["rank"]] == row["i"]


def test_seconds_are_rounded_down_also_before_1970(engine: Engine) -> None:
    micros = pa.array([1_900_000, 2_000_000, -100_000], pa.timestamp("us"))
    times = engine.table(pa.table({"time": micros}))
    assert times.select(s=seconds(times["time"])).to_pyarrow()["s"].to_pylist() == [1, 2, -1]


def test_events_of_all_appends_are_read_whatever_the_folder_is_called(
    engine: Engine, tmp_path: Path
) -> None:
    log = EventLog.create(tmp_path / "u=5", SCHEMA)  # Hive would make this a column of fives
    for user in (1, 2):
        log.append(pa.table({"u": [user], "i": [7], "time": [datetime(2024, 1, user)]}))
    events = read_events(engine, log).order_by("position").to_pyarrow()
    assert events.column_names == ["u", "i", "time", "position"]
    assert events["u"].to_pylist() == [1, 2]


def test_an_empty_log_is_an_error_of_one_line(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no events"):
        read_events(engine, EventLog.create(tmp_path / "log", SCHEMA))


def test_a_log_without_order_is_shuffled_and_always_alike(engine: Engine) -> None:
    """The order of its lines, often that of ids, must not look like what came after what."""
    log = [(user, 0) for user in range(3) for _ in range(40)]
    unordered = SCHEMA.model_copy(update={"clock": "none"})
    found = []
    for stored in (list(range(120)), list(range(119, -1, -1))):
        events = as_table(engine, log, stored)
        rows = engine.collect(events.order_by("u", *order(events, unordered)))
        found.append(rows["i"].to_pylist())
    assert found[0] == found[1]
    for user in range(3):
        items = found[0][40 * user : 40 * user + 40]
        expected = [100 + 40 * user + n for n in range(40)]
        assert sorted(items) == expected
        ascents = sum(b > a for a, b in pairwise(items))
        assert 10 < ascents < 30  # of 39; a sorted list has 39
