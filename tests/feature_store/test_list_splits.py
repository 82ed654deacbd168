"""Splits of lists as they were shown: none is cut, and the last of them are the test."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from feature_store.columns import ROLE
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.protocols import AnyProtocol, Fixed, GlobalTime, LastLists, LeaveOneOut
from feature_store.schema import Feature, Schema
from feature_store.splits import make_split

FEATURES = (
    Feature(name="u", kind="id", side="user"),
    Feature(name="i", kind="id", side="item", dtype="int64"),
    Feature(name="page", kind="id", side="context", dtype="int64"),
)
# user, second, page (None: a look, shown in none); items are numbered from 0. Page 4 goes on while
# page 5 is shown already, and pages 5 and 6 begin in the same second
EVENTS = [
    ("a", 1, 1), ("a", 1, 1), ("a", 2, None), ("b", 3, 2), ("b", 4, 3),
    ("c", 5, 4), ("a", 5, None), ("a", 6, None), ("b", 6, 5), ("b", 6, None), ("c", 6, 6),
    ("c", 7, 4), ("a", 9, 5),
]  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineConfig(threads=1))


def make_log(folder: Path, **roles: str) -> EventLog:
    log = EventLog.create(folder, Schema(user="u", item="i", features=FEATURES, **roles))
    users, seconds, pages = zip(*EVENTS, strict=True)
    times = [datetime.fromtimestamp(second, UTC) for second in seconds]
    log.append(pa.table({"u": users, "i": range(len(users)), "time": times, "page": pages}))
    return log


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    return make_log(tmp_path_factory.mktemp("lists") / "log", list="page")


def roles(engine: Engine, log: EventLog, config: AnyProtocol) -> dict[str, list[int]]:
    """Items by role."""
    events = make_split(engine, log, config).events.order_by("position").to_pyarrow()
    return {
        role: [row["i"] for row in events.to_pylist() if row[ROLE] == role]
        for role in ("train", "validation", "test")
    }


def test_the_last_lists_are_the_test_and_looks_go_with_the_lists_of_their_time(
    engine: Engine, log: EventLog
) -> None:
    # of six lists by their first events one is the test, two validation
    config = LastLists(test=1 / 6, validation=2 / 6)
    assert roles(engine, log, config) == {
        "train": [0, 1, 2, 3, 4],
        "validation": [5, 6, 7, 8, 9, 11, 12],
        "test": [10],
    }
    # a share that is begun takes the whole list
    more = LastLists(test=0.2, validation=0.2)
    assert roles(engine, log, more)["test"] == [8, 9, 10, 12]
    assert roles(engine, log, more)["validation"] == [5, 6, 7, 11]
    split = make_split(engine, log, more)
    assert split.protocol == "last_lists-shown" and split.grows


def test_a_moment_cuts_no_list_either(engine: Engine, log: EventLog) -> None:
    moments = [datetime.fromtimestamp(second, UTC) for second in (4, 6)]
    config = GlobalTime(validation_start=moments[0], test_start=moments[1], candidates="shown")
    assert roles(engine, log, config) == {
        "train": [0, 1, 2, 3],
        "validation": [4, 5, 6, 11],
        "test": [7, 8, 9, 10, 12],
    }
    assert make_split(engine, log, config).protocol == "global_time-shown"
    plain = GlobalTime(validation_start=moments[0], test_start=moments[1])
    assert roles(engine, log, plain)["test"] == [7, 8, 9, 10, 11, 12]
    assert not make_split(engine, log, plain).grows


def test_what_cuts_lists_or_does_not_know_them_is_refused(
    engine: Engine, log: EventLog, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"leave_one_out split cuts [0-9]+ lists in two"):
        make_split(engine, log, LeaveOneOut(candidates="shown"))
    unlisted = make_log(tmp_path / "log")
    for config in (LastLists(), GlobalTime(candidates="shown")):
        with pytest.raises(DataError, match="name the column with the list role"):
            make_split(engine, unlisted, config)
    published = unlisted.schema.model_copy(update={"published_role": "page"})
    with pytest.raises(DataError, match="name the column with the list role"):
        Fixed(candidates="shown").check(published)
    with pytest.raises(ValidationError, match="leave sampled_candidates out"):
        GlobalTime(candidates="shown", sampled_candidates=10)
    with pytest.raises(ValidationError, match="nothing is left to train on"):
        LastLists(test=0.5, validation=0.5)
