"""The same job on both engines: seconds each, and whether every row is the same.

`python -m benchmarks.engines --data FOLDER/ml-1m` ingests MovieLens-1M and makes examples of it,
leave one out, a row a user, on the embedded engine and on Spark with as many `--threads`. Spark's
start is told apart. The last line is one JSON line; `--save` appends it to
benchmarks/results/engines.jsonl.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.requests import processor
from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.event_log import EventLog
from feature_store.examples import parts_of, write_examples
from feature_store.ingest import ingest
from feature_store.parquet import read_parquet
from feature_store.protocols import LeaveOneOut
from feature_store.sources.base import Source
from feature_store.splits import make_split

RESULTS = Path(__file__).parent / "results" / "engines.jsonl"
TABLES = ("train", "validation", "test", "items", "users", "interactions", "serving")


def job(source: Source, config: EngineConfig, folder: Path) -> dict[str, float]:
    """Seconds of each step; the examples lie in `folder`/examples."""
    seconds, last = {}, time.perf_counter()

    def stop(name: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[name], last = round(now - last, 2), now

    with Engine(config) as engine:
        engine.collect(engine.table(pa.table({"a": [1]})))
        stop("start")
        ingest(source, folder / "log", engine=config)
        stop("ingest")
        log = EventLog.open(folder / "log")
        split = make_split(engine, log, LeaveOneOut())
        catalogue = Catalogue(log.folder, log.schema)
        write_examples(engine, split, catalogue, folder / "examples")
        stop("examples")
    return seconds


def rows_of(folder: Path, table: str) -> pa.Table:
    """All rows of a table of examples, in their order."""
    return pa.concat_tables(read_parquet(part) for part in parts_of(folder / "examples", table))


def compare(source: Source, embedded: EngineConfig, spark: EngineConfig) -> dict[str, Any]:
    """Seconds of both, rows that were compared, and the tables in which some row differs."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / name for name in ("embedded", "spark")]
        seconds = {}
        for folder, config in zip(folders, (embedded, spark), strict=True):
            folder.mkdir()
            seconds[folder.name] = job(source, config, folder)
        rows, differ = 0, []
        for table in TABLES:
            mine, theirs = (rows_of(folder, table) for folder in folders)
            rows += mine.num_rows
            # as text, in which NaN is itself
            if not (mine.equals(theirs) or repr(mine.to_pylist()) == repr(theirs.to_pylist())):
                differ.append(table)
    return {"seconds": seconds, "rows": rows, "differ": differ}


def main() -> None:
    """Run the job on both engines and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder with MovieLens-1M")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-gb", type=float, default=2.0)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    from feature_store.sources import MovieLens

    source = MovieLens(path=str(options.data))
    both = {"threads": options.threads, "memory_gb": options.memory_gb}
    result = compare(source, EngineConfig(**both), EngineConfig(kind="spark", **both))
    line = json.dumps({"data": options.data.name, **both, **result, "cpu": processor()})
    if options.save:
        with open(RESULTS, "a") as file:
            file.write(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
