"""What do examples of one more day cost, as the log behind it grows?

    python -m benchmarks.day_cost

A day of 3,000 events by 1,000 users joins logs of `--events` and ten times as many: of ten times as
many users, who do not come, or of the same users over ten times as many events each. Examples are
grown from those of the day before. The last line is JSON: of each log its events, those `read` for
the day, `processor_seconds` of the day (append, parts by user, examples) and of the whole log.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.requests import processor
from feature_store.by_user import ByUser
from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.event_log import EventLog
from feature_store.examples import ExamplesSummary, RowsOf, grow, held_before, write_examples
from feature_store.protocols import TRAIN, GlobalTime
from feature_store.schema import Feature, Schema
from feature_store.splits import make_split
from feature_store.vocabulary import Vocabulary

DAYS, COMING, OF_DAY, ITEMS, LENGTH = 60, 1_000, 3_000, 5_000, 50
START = datetime(2024, 1, 1)
_WINDOW = 2  # days before the newest whose users are read, too: the same who come then
SCHEMA = Schema(
    user="user",
    item="item",
    features=(
        Feature(name="user", kind="id", side="user", dtype="int64"),
        Feature(name="item", kind="id", side="item", dtype="int64"),
    ),
)


def events_of(count: int, users: int, first: int, days: int, seed: int) -> pa.Table:
    """Random events of the first users on some days."""
    random = np.random.default_rng(seed)
    seconds = random.integers(first * 86_400, (first + days) * 86_400, count)
    times = np.datetime64(START, "us") + seconds.astype("timedelta64[s]")
    user, item = random.integers(1, users + 1, count), random.integers(1, ITEMS + 1, count)
    return pa.table({"user": user, "item": item, "time": times})


def measure(folder: Path, events: int, users: int) -> dict[str, Any]:
    """A day behind a log of so many events of so many users."""
    log, catalogue = EventLog.create(folder / "store", SCHEMA), Catalogue(folder / "store", SCHEMA)
    log.append(events_of(events, users, 0, DAYS - _WINDOW, seed=1))
    for day in range(DAYS - _WINDOW, DAYS):
        log.append(events_of(OF_DAY, COMING, day, 1, seed=day))
    ByUser(log)
    with Engine(EngineConfig(threads=1)) as engine:
        whole = _made(engine, log, catalogue, folder, DAYS - 1, None)
        started = time.process_time()
        log.append(events_of(OF_DAY, COMING, DAYS, 1, seed=DAYS))
        _made(engine, log, catalogue, folder, DAYS, DAYS - 1)
        taken = time.process_time() - started
    read = ExamplesSummary.load(folder / str(DAYS)).read
    of_day = {"read": read, "processor_seconds": round(taken, 2)}
    return {"events": log.num_rows, "users": users, **of_day, "whole": round(whole, 2)}


def _made(
    engine: Engine,
    log: EventLog,
    catalogue: Catalogue,
    folder: Path,
    day: int,
    before: int | None,
) -> float:
    """A processor's seconds of making the examples whose test is a day, from those of another."""
    started = time.process_time()
    test = START + timedelta(days=day)
    protocol = GlobalTime(validation_start=test - timedelta(days=1), test_start=test)
    since, grown, base = test - timedelta(days=1), None, {}
    if before is not None:
        theirs = folder / str(before)
        paths = (theirs / "vocabulary").glob("*.arrow")
        base = {path.stem: Vocabulary.load(path) for path in paths}
        held = held_before(theirs, log, catalogue, protocol, RowsOf(), LENGTH, (TRAIN,), since)
        assert held is not None
        grown = grow(engine, log, catalogue, held, protocol, since)
    write_examples(
        engine,
        make_split(engine, log, protocol) if grown is None else grown.split,
        catalogue,
        folder / str(day),
        history_length=LENGTH,
        since=since,
        base=base,
        made_from={"split": protocol.model_dump(mode="json")},
        grown=grown,
    )
    return time.process_time() - started


def main(words: list[str] | None = None) -> None:
    """Measure three logs and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=200_000)
    args = parser.parse_args(words)
    few, many = args.events // 10, args.events
    logs = {
        "once": (args.events, few),
        "ten times the users": (10 * args.events, many),
        "ten times the history": (10 * args.events, few),
    }
    found = {}
    for name, (events, users) in logs.items():
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(Path(folder), events, max(users, COMING))
    print(json.dumps({"benchmark": "day_cost", "logs": found, "processor": processor()}))


if __name__ == "__main__":
    main()
