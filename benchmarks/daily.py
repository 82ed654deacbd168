"""What are fresh models worth, and what does a day cost?

Plays days of the synthetic log, whose interests drift and of whose items some come into being on
the way, through `recsys daily`: a history makes the first bundle, then every day comes as a file,
with events that are late and others that come twice.
Beside the day's model and the bundle in service the first bundle answers, which is never renewed.

    python -m benchmarks.daily --out FOLDER >> benchmarks/results/daily.jsonl

leaves all runs in FOLDER, and `days.html` with the curves; what was stopped goes on. The last
line is JSON: mean figures of `fresh`, `served` and `stale` over the days, `late_gain` of fresh over
stale in the last half of them, `held` days, events `arrived`, `read` and `log` on the last day,
bytes of `delta` and `bundle`, and seconds of a day (`seconds_first`, `seconds_median`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.requests import processor
from feature_store.sources import Synthetic
from feature_store.sources.synthetic_truth import START_S
from feature_store.sources.synthetic_world import DAY_S
from pipelines.daily import daily
from pipelines.run import resolve
from recsys.config import RunConfig
from recsys.report.days import write_days
from recsys.runs.days import HELD, Days

LATE, TWICE = 0.03, 0.03  # of the events of a day
NEW = 0.3  # of the items
CONFIG = Path(__file__).parents[1] / "pipelines" / "configs" / "daily.toml"


def write_log(folder: Path, source: Synthetic, history: int, new: float = NEW) -> list[Path]:
    """The files that come, first the history: late events come a day or two later, and some that
    came come again the day after. A share of the items is `new` on one of the days behind the
    history, and nothing happens to them before."""
    if folder.exists():
        return sorted(folder.glob("2*.parquet"))
    aside = folder.with_name("arriving")
    aside.mkdir(parents=True, exist_ok=True)
    events = pa.concat_tables([chunk.table for chunk in source.read_events()])
    seconds = pc.divide(events["time"].cast(pa.int64()), 1_000_000).to_numpy() - START_S
    day, last = seconds // DAY_S, source.days - 1
    random = np.random.default_rng(source.seed)
    begins = np.where(
        random.random(source.items) < new, random.integers(history, last + 1, source.items), 0
    )
    there = day >= begins[events["item_id"].to_numpy() - 1]
    events, day = events.filter(pa.array(there)), day[there]
    late = (random.random(len(day)) < LATE) * random.integers(1, 3, len(day))
    comes = np.maximum(np.minimum(day + late, last), history - 1)
    again = np.where(random.random(len(day)) < TWICE, comes + 1, -1)
    for number in range(history - 1, last + 1):
        name = f"{datetime.fromtimestamp(START_S + number * DAY_S, UTC):%Y-%m-%d}.parquet"
        pq.write_table(events.filter(pa.array((comes == number) | (again == number))), aside / name)
    items = pa.concat_tables([chunk.table for chunk in source.read_items()])
    pq.write_table(items.select(["item_id", "title", "category"]), aside / "items.parquet")
    aside.rename(folder)
    return write_log(folder, source, history, new)


def config_of(out: Path, arrived: Path, overrides: list[str]) -> RunConfig:
    """The config of a day: that of `recsys daily`, over a log of one's own."""
    tree = tomllib.loads(CONFIG.read_text())
    columns = {"user": "user_id", "item": "item_id", "time": "time", "event_type": "event_type"}
    tree["data"] = {
        "source": "parquet",
        "path": str(arrived),
        "columns": columns,
        "items": str(arrived.parent / "items.parquet"),
        "title": "title",
    }
    tree |= {"baselines": [], "tracking": {"enabled": False}, "output": str(out)}
    return resolve(tree, overrides)


def play(out: Path, source: Synthetic, history: int, overrides: list[str]) -> dict[str, Any]:
    """Take all days in, and tell what the last line says."""
    first, *rest = write_log(out / "arrived", source, history)
    config = config_of(out, first, overrides)
    days = Days(config)
    if not days.records:
        daily(config)
    for number, arrived in enumerate(rest, 1):
        if "stale" in days.told(arrived.stem):
            continue
        told = daily(config_of(out, arrived, [*overrides, "daily.stale=true"]))
        gate = told["gate"]
        print(
            f"day {number} of {len(rest)}, {told['day']}: {told['state']}; fresh "
            f"{gate['fresh']:.4f}, in service {gate['served']:.4f}, stale {told['stale']:.4f}; "
            f"read {told['rows']['read']:,} of {told['rows']['log']:,}",
            file=sys.stderr,
        )
    write_days(days.records, days.page)
    return summary(days.records)


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What the last line says of the days."""
    judged = [record for record in records if "gate" in record]
    half = judged[len(judged) // 2 :]

    def mean(some: list[dict[str, Any]], name: str) -> float:
        return statistics.fmean(r["gate"].get(name, r.get(name)) for r in some)

    last = judged[-1]
    seconds = [sum(record["seconds"].values()) for record in records]
    return {
        "metric": last["gate"]["metric"],
        "days": len(judged),
        **{name: round(mean(judged, name), 4) for name in ("fresh", "served", "stale")},
        "late_gain": round(mean(half, "fresh") - mean(half, "stale"), 4),
        "held": sum(record["state"] == HELD for record in judged),
        "arrived": last["arrived"]["stored"],
        "late": sum(record["arrived"]["late"] for record in judged),
        "repeated": sum(record["arrived"]["repeated"] for record in judged),
        "read": last["rows"]["read"],
        "log": last["rows"]["log"],
        "delta": last["delta_bytes"],
        "bundle": last["bundle_bytes"],
        "seconds_first": round(seconds[0], 1),
        "seconds_median": round(statistics.median(seconds[1:]), 1),
        "daily": [
            {"day": r["day"], "state": r["state"], "fresh": round(r["gate"]["fresh"], 4),
             "served": round(r["gate"]["served"], 4), "stale": round(r["stale"], 4),
             "read": r["rows"]["read"]}
            for r in judged
        ],
    }  # fmt: skip


def main() -> None:
    """Play the days and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--history", type=int, default=30, help="days before the first")
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--out", type=Path, help="keep all runs there")
    parser.add_argument("overrides", nargs="*", help="such as daily.epochs=3")
    args = parser.parse_args()
    source = Synthetic(
        users=args.users,
        items=args.items,
        days=args.history + args.days,
        events=15,
        drift=1.0,
        seed=1,
    )
    with tempfile.TemporaryDirectory() as name:
        out = args.out or Path(name)
        figures = play(out, source, args.history, args.overrides)
    told = {"benchmark": "daily", **figures, "users": args.users, "processor": processor()}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
