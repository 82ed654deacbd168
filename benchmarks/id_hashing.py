"""How many raw ids per second become 64-bit keys, and rows of a table?

Strings and integers, against pandas' `hash_array` (SipHash in C) and a Python loop over SHA-256;
medians of repetitions in turn. `ratio` is strings per second over pandas'.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from pandas.util import hash_array

from feature_store.hashing import keys_of
from recsys.embeddings.hashing import hash_rows, salt_of


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ids", type=int, default=2_000_000)
    parser.add_argument("--repetitions", type=int, default=7)
    args = parser.parse_args()
    numbers = np.random.default_rng(0).permutation(args.ids)
    texts = [f"user-{number:09d}" for number in numbers]
    strings, integers, objects = pa.array(texts), pa.array(numbers), np.array(texts, dtype=object)
    keys, some = torch.from_numpy(keys_of(strings)), texts[: args.ids // 50]
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "strings": (args.ids, lambda: keys_of(strings)),
        "integers": (args.ids, lambda: keys_of(integers)),
        "rows_of_keys": (args.ids, lambda: hash_rows(keys, salt_of("user", 0), 1_000_003)),
        "pandas_strings": (args.ids, lambda: hash_array(objects, categorize=False)),
        "python_loop": (
            len(some),
            lambda: [int.from_bytes(hashlib.sha256(t.encode()).digest()[:8]) for t in some],
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(args.repetitions + 1):
        for name, (_, run) in ways.items():
            start = time.perf_counter()
            run()
            if repetition:
                times[name].append(time.perf_counter() - start)
    rates = {name: count / statistics.median(times[name]) for name, (count, _) in ways.items()}
    print(
        json.dumps(
            {
                "benchmark": "id_hashing",
                "ids_per_second": {name: round(rate) for name, rate in rates.items()},
                "ratio": round(rates["strings"] / rates["pandas_strings"], 2),
                "bytes_of_a_string": len(texts[0]),
                "ids": args.ids,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
