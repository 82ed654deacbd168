"""How close does the reader come to bare Parquet decoding, and how much memory does it take?

Generates a log of 10 id columns and 2 list columns with a mean of 50 values, and reads it in
turn with `pyarrow.ParquetFile.read_row_group` alone (the limit) and with the shuffling reader.
`ratio` is the reader's rows per second over bare decoding's, medians of the repetitions;
`peak_rss_mb` is measured for each size in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

IDS, LISTS, MEAN_LENGTH, CARDINALITY = 10, 2, 50, 1_000_000
ROW_GROUP_ROWS, FILE_ROWS = 16_384, 1 << 20


def generate(folder: Path, rows: int, seed: int = 0) -> list[Path]:
    """Write the log, a file per million rows; returns the files."""
    rng = np.random.default_rng(seed)
    files = []
    for first in range(0, rows, FILE_ROWS):
        count = min(FILE_ROWS, rows - first)
        columns: dict[str, pa.Array] = {
            f"id_{i}": pa.array(rng.integers(1, CARDINALITY, count)) for i in range(IDS)
        }
        for i in range(LISTS):
            offsets = np.concatenate([[0], rng.poisson(MEAN_LENGTH, count).cumsum()])
            values = rng.integers(1, CARDINALITY, offsets[-1], dtype=np.int32)
            columns[f"list_{i}"] = pa.ListArray.from_arrays(
                pa.array(offsets.astype(np.int32)), pa.array(values)
            )
        files.append(folder / f"part-{first:010d}.parquet")
        pq.write_table(
            pa.table(columns), files[-1], row_group_size=ROW_GROUP_ROWS, compression="zstd"
        )
    return files


def decode(files: list[Path]) -> int:
    """Rows decoded by bare `read_row_group` of all columns."""
    rows = 0
    for path in files:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows += file.read_row_group(group).num_rows
    return rows


def read(files: list[Path], batch_size: int, workers: int) -> int:
    """Rows of one shuffled epoch of the reader."""
    from recsys.data.options import ReaderConfig
    from recsys.data.reader import Reader

    config = ReaderConfig(batch_size=batch_size, workers=workers)
    return sum(len(batch) for batch in Reader(files, config, seed=1))


def peak_rss_mb() -> float:
    """The largest resident memory of this process so far, in 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    """Generate, measure in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--large", type=int, default=8_000_000, help="rows of the memory check")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to generate (default: a new folder)")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        read(sorted(args.memory_of.glob("*.parquet")), args.batch_size, args.workers)
        print(peak_rss_mb())
        return
    again = [sys.executable, "-m", "benchmarks.reader"]
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        small, large = Path(folder) / "small", Path(folder) / "large"
        for place, rows in ((small, args.rows), (large, args.large)):
            place.mkdir()
            print(f"generating {rows:,} rows", file=sys.stderr)
            generate(place, rows)
        files = sorted(small.glob("*.parquet"))
        seconds: dict[str, list[float]] = {"read": [], "decode": []}
        for repetition in range(args.repetitions + 1):
            for name, run in (
                ("decode", lambda: decode(files)),
                ("read", lambda: read(files, args.batch_size, args.workers)),
            ):
                start = time.perf_counter()
                assert run() == args.rows
                if repetition:  # the first warms up caches and threads
                    seconds[name].append(time.perf_counter() - start)
        rates = {name: args.rows / statistics.median(found) for name, found in seconds.items()}
        options = ["--batch-size", str(args.batch_size), "--workers", str(args.workers)]
        memory = [
            float(subprocess.check_output([*again, "--memory-of", str(place), *options]))
            for place in (small, large)
        ]
    print(
        json.dumps(
            {
                "benchmark": "reader",
                "rows": args.rows,
                "rows_per_second": round(rates["read"]),
                "decode_rows_per_second": round(rates["decode"]),
                "ratio": round(rates["read"] / rates["decode"], 3),
                "peak_rss_mb": round(memory[0]),
                f"peak_rss_mb_at_{args.large}_rows": round(memory[1]),
                "batch_size": args.batch_size,
                "workers": args.workers,
            }
        )
    )


if __name__ == "__main__":
    main()
