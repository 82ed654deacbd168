"""How long does it take to make examples of a log, and how much memory, as users grow?

Generates logs of users with a mean of 20 events, ingests them, and makes the examples of a
sequence model under the leave-one-out protocol; then runs the whole of the largest: one training
step, evaluation of every user, export. Each measurement is a process of its own; `peak_gb` is
the most memory (10^9 bytes) that it had at one time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ITEMS, EVENTS, DAYS = 20_000, 20, 365
_USERS_A_FILE = 50_000
_START = np.datetime64("2024-01-01", "us")


def generate(folder: Path, users: int, seed: int = 0) -> None:
    """Write a log whose items are as unequal as those of a shop, in no order of time."""
    folder.mkdir(parents=True)
    for first in range(0, users, _USERS_A_FILE):
        rng = np.random.default_rng([seed, first])
        count = min(_USERS_A_FILE, users - first)
        sizes = 3 + rng.geometric(1 / (EVENTS - 2), count) - 1
        rows = int(sizes.sum())
        order = rng.permutation(rows)
        items = np.floor(ITEMS * rng.random(rows) ** 3).astype(np.int64)
        second = rng.integers(0, DAYS * 86_400, rows)
        table = pa.table(
            {
                "user_id": np.repeat(first + 1 + np.arange(count), sizes)[order],
                "item_id": items + 1,
                "time": _START + second.astype("timedelta64[s]"),
            }
        )
        pq.write_table(table, folder / f"part-{first:010d}.parquet")


def config_of(folder: Path, users: int) -> dict[str, Any]:
    """A small sequence model that takes one step."""
    return {
        "name": "run",
        "output": str(folder / str(users)),
        "data": {
            "source": "parquet",
            "path": str(folder / f"log-{users}"),
            "columns": {"user": "user_id", "item": "item_id", "time": "time"},
        },
        "retriever": {"name": "sasrec", "width": 16, "blocks": 1, "max_length": 50},
        "baselines": [],
        "trainer": {"steps": 1},
        "tracking": {"enabled": False},
    }


def ingest(folder: Path, users: int) -> None:
    """Generate a log and make it an event log."""
    from pipelines.ingest import ingest_source
    from recsys.config import parse_config

    generate(folder / f"log-{users}", users)
    config = parse_config(config_of(folder, users))
    ingest_source(config.data, config.store_folder, engine=config.engine)


def make_examples(folder: Path, users: int) -> None:
    """Make the examples of an event log."""
    from recsys.config import parse_config
    from recsys.runs.prepare import prepare

    prepare(parse_config(config_of(folder, users)))


def run_whole(folder: Path, users: int) -> None:
    """Everything that `recsys run` does, with one training step; examples are made anew."""
    import recsys

    recsys.run({**config_of(folder, users), "name": "whole"})


def measured(work: Callable[[Path, int], None], folder: Path, users: int) -> dict[str, float]:
    """Seconds and peak memory of some work in another process. Raises RuntimeError if it fails."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=_report, args=(there, work, folder, users)
    )
    child.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        raise RuntimeError(f"{work.__name__} of {users:,} users failed") from None
    finally:
        child.join()


def _report(pipe: Any, work: Callable[[Path, int], None], folder: Path, users: int) -> None:
    import pipelines.run  # noqa: F401 (loading it takes seconds, which are not the work's)

    started = time.perf_counter()
    work(folder, users)
    seconds = time.perf_counter() - started
    pipe.send({"seconds": round(seconds, 1), "peak_gb": _peak_gb()})


def _peak_gb() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    (line,) = (row for row in status if row.startswith("VmHWM"))
    return round(int(line.split()[1]) * 1024 / 1e9, 2)


def main() -> None:
    """Print a line for each measurement, and all of them in the last one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[50_000, 200_000, 1_000_000])
    parser.add_argument(
        "--no-whole", action="store_true", help="without training, evaluation and export"
    )
    args = parser.parse_args()
    results: dict[str, Any] = {"events_a_user": EVENTS, "items": ITEMS, "sizes": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for users in args.users:
            log = measured(ingest, folder, users)
            row = {"users": users, "ingest": log, **measured(make_examples, folder, users)}
            results["sizes"].append(row)
            summary = json.loads((folder / str(users) / "run/examples/examples.json").read_text())
            row["events"] = sum(summary["events"].values())
            print(json.dumps(row), flush=True)
        if not args.no_whole:
            results["whole"] = measured(run_whole, folder, args.users[-1])
            print(json.dumps(results["whole"]), flush=True)
    largest = results["sizes"][-1]
    results["peak_gb"] = max(largest["peak_gb"], results.get("whole", largest)["peak_gb"])
    results["events_per_second"] = round(largest["events"] / largest["seconds"])
    print(json.dumps(results))


if __name__ == "__main__":
    main()
