"""How many events a second become a log, and examples, in how much memory, as logs grow?

For each size: raw Parquet of events in no order of time is generated (or, with `--data`,
MovieLens-1M is grown by fractal expansion to as many), then ingested, split leave-one-out and made
examples of, and one epoch of them is read. Each step is a process of its own. `peak_gb` is the most
memory (10^9 bytes) that its processes had at one time, looked at every few milliseconds; one that
takes more than `--memory` is ended, and told of as null. `processor_seconds`, of all threads of the
step, do not count what else runs.

Beside it, what pandas and polars take to do the like by hand: raw files sorted by time and written
again (`ingest`), sorted by user and time, split and put together as lists (`examples`), without any
check of a row. polars runs where it is installed: `--polars .venv-fuxictr/bin/python`
(`make peers`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.examples import EVENTS, config_of, generate
from benchmarks.requests import processor

SIZES = (1_000_000, 10_000_000, 100_000_000)
STEPS = ("ingest", "examples", "read")
PEERS = Path(__file__).parent / "peers" / "ingest_by_hand.py"
_LOOK = 0.02  # seconds between two looks at memory
GB = 1e9


def tree(folder: Path, users: int, data: Path | None, events: int) -> dict[str, Any]:
    """The config of a small sequence model over generated files, or over a grown MovieLens."""
    config = config_of(folder, users)
    if data is not None:
        config["data"] = {"source": "fractal", "path": str(data), "events": events}
    return config


def do(step: str, told: dict[str, Any]) -> int:
    """A step of a config; returns rows that were read."""
    from pipelines.ingest import ingest_log
    from recsys.config import parse_config
    from recsys.data.options import ReaderConfig
    from recsys.model import TrainedModel
    from recsys.runs.build import build_model
    from recsys.runs.prepare import prepare

    config = parse_config(told)
    if step == "ingest":
        return ingest_log(config).events.stored
    examples = prepare(config)
    if step == "examples":
        return sum(examples.summary.events.values())
    model = build_model(config, examples)
    assert isinstance(model, TrainedModel)
    reader = model.training_reader(examples, ReaderConfig(), seed=0, rank=0, world=1)
    return sum(len(batch) for batch in reader)


def measured(command: list[str], limit: float) -> dict[str, float] | None:
    """What a program tells in its last line, with the most memory that it and those it has started
    had together; None where that is more than the limit, in bytes, or it fails."""
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    while program.poll() is None:
        peak = max(peak, memory_of(program.pid))
        if peak > limit:
            program.kill()
        time.sleep(_LOOK)
    assert program.stdout is not None
    out = program.stdout.read().splitlines()
    if program.returncode:
        return None
    told: dict[str, float] = json.loads(out[-1])
    peak = max(peak, int(told.pop("own_peak", 0)))
    return told | {"peak_gb": round(peak / GB, 2)}


def memory_of(process: int) -> int:
    """Resident bytes of a process and of all that it has started."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (OSError, IndexError):  # it has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(memory_of(int(child)) for child in children)


def own_peak() -> int:
    """The most resident bytes that this process ever had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def bytes_below(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def size_of(events: int, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All steps of one size, ours and theirs."""
    users, limit = events // EVENTS, args.memory * GB
    raw, told = folder / f"log-{users}", tree(folder, users, args.data, events)
    if args.data is None:
        generate(raw, users)
    (folder / "config.json").write_text(json.dumps(told))
    found: dict[str, Any] = {"events": events}
    for step in STEPS:
        command = [sys.executable, "-m", "benchmarks.ingest", "--step", step]
        found[step] = measured([*command, "--folder", str(folder)], limit)
        if found[step] is None:
            return found
        print(f"{events:,} events, {step}: {found[step]}", file=sys.stderr)
    store, examples = folder / str(users) / "store", folder / str(users) / "run" / "examples"
    found |= {
        "events_per_second": found["ingest"]["rows_per_second"],
        "examples_per_second": found["examples"]["rows_per_second"],
        "peak_gb": max(found[step]["peak_gb"] for step in STEPS),
        "log_bytes_per_event": round(bytes_below(store) / found["ingest"]["rows"], 1),
        "examples_bytes_per_event": round(bytes_below(examples) / found["examples"]["rows"], 1),
    }
    by_hand = {"pandas": sys.executable, "polars": args.polars}
    for name, python in by_hand.items():
        if python and args.data is None and events <= args.by_hand:
            command = [str(python), str(PEERS), name, str(raw), str(folder / name)]
            found[name] = measured(command, limit)
            print(f"{events:,} events, {name}: {found[name]}", file=sys.stderr)
    return found


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--data", type=Path, help="MovieLens-1M, to be grown: folder or zip")
    parser.add_argument("--memory", type=float, default=8.0, help="GB of a step, at most")
    parser.add_argument("--polars", type=Path, help="a Python that has polars")
    parser.add_argument("--by-hand", type=int, default=1 << 62, help="events, at most, of others")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step:
        told = json.loads((args.folder / "config.json").read_text())
        import pipelines.run  # noqa: F401 (loading it takes seconds, which are not the step's)

        started, of_processor = time.perf_counter(), time.process_time()
        rows = do(args.step, told)
        seconds = time.perf_counter() - started
        rate = round(rows / seconds)
        line = {"rows": rows, "seconds": round(seconds, 1), "rows_per_second": rate}
        line |= {"processor_seconds": round(time.process_time() - of_processor, 1)}
        print(json.dumps(line | {"own_peak": own_peak()}))
        return
    sizes = []
    for events in args.events:
        with tempfile.TemporaryDirectory() as name:
            sizes.append(size_of(events, args, Path(name)))
    log = "synthetic" if args.data is None else "movielens-1m grown"
    print(json.dumps({"benchmark": "ingest", "log": log, "sizes": sizes, "processor": processor()}))


if __name__ == "__main__":
    main()
