"""How fast do stores of users take events, and tell histories?

Appends a log of random events, in the order of time, to SQLite and to a Redis server that is
started for it (on a socket, with `appendonly`), in batches as a sync does; then events one by one,
as a server does, and reads of one user and of 64. The bundle's file of the same users is read
beside them.

For each kind: `appends_per_second` of batches, `append_ms_p50` and `_p99` of single events,
`read_ms_p50` and `_p99` of one user, `read_64_ms_p50` of 64 together, and `bytes_per_event`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.redis_server import redis_server
from benchmarks.requests import processor
from feature_store.schema import Feature, Schema
from recsys.online.places import open_store
from recsys.online.rules import Rules
from recsys.online.store import UserStore
from recsys.serving.users import KnownUsers, UsersFile

SCHEMA = Schema(
    user="user_id",
    item="item_id",
    event_type="event_type",
    features=(
        Feature(name="user_id", kind="id", side="user", dtype="int64"),
        Feature(name="item_id", kind="id", side="item", dtype="int64"),
        Feature(name="event_type", kind="id", side="context"),
    ),
)
RULES = Rules(log=SCHEMA, histories={"history": (), "bought": ("purchase",)})
BATCH, MANY = 1 << 16, 64
START = 1_700_000_000_000_000  # microseconds since 1970
TYPES = pa.array(["click", "purchase"])


def events(rng: np.random.Generator, users: int, first: int, rows: int) -> pa.Table:
    """Random events, each some milliseconds behind the one before."""
    times = START + (first + np.arange(rows)) * 7_000
    return pa.table(
        {
            "user_id": rng.integers(0, users, rows),
            "item_id": rng.integers(0, 1_000_000, rows),
            "time": pa.array(times, pa.timestamp("us")),
            "event_type": TYPES.take(pa.array((rng.random(rows) < 0.1).astype(np.int64))),
        }
    )


def milliseconds(call: Callable[[], Any], seconds: float) -> np.ndarray:
    """Of each call, for so long."""
    took, until = [], time.perf_counter() + seconds
    call()
    while time.perf_counter() < until:
        start = time.perf_counter()
        call()
        took.append((time.perf_counter() - start) * 1000)
    return np.array(took)


def percentiles(name: str, took: np.ndarray) -> dict[str, float]:
    """p50 and p99."""
    p50, p99 = np.percentile(took, [50, 99]).round(3).tolist()
    return {f"{name}_ms_p50": p50, f"{name}_ms_p99": p99}


def reads(store: KnownUsers, users: int, seconds: float) -> dict[str, float]:
    """Of one user, and of many."""
    rng = np.random.default_rng(2)

    def read(count: int) -> Callable[[], Any]:
        return lambda: store.of(pa.array(rng.integers(0, users, count)))

    alone = percentiles("read", milliseconds(read(1), seconds))
    return alone | percentiles(f"read_{MANY}", milliseconds(read(MANY), seconds))


def measure(store: UserStore, users: int, rows: int, seconds: float) -> dict[str, float]:
    """All figures of a store that is empty."""
    rng, done, spent = np.random.default_rng(1), 0, 0.0
    while done < rows:
        batch = events(rng, users, done, min(BATCH, rows - done))
        start = time.perf_counter()
        done += store.append(batch)
        spent += time.perf_counter() - start
    numbers = iter(range(rows, 1 << 40))
    single = milliseconds(lambda: store.append(events(rng, users, next(numbers), 1)), seconds)
    return {
        "appends_per_second": round(rows / spent),
        **percentiles("append", single),
        **reads(store, users, seconds),
    }


def write_file(store: UserStore, path: Path) -> UsersFile:
    """The bundle's file of the users of a store."""
    users = store.users()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, store.schema) as writer:
        for first in range(0, len(users), BATCH):
            writer.write_table(store.of(users.slice(first, BATCH)))
    return UsersFile(path, SCHEMA.user)


def stores(folder: Path, stack: ExitStack) -> Iterator[tuple[str, str]]:
    """Kinds and their URLs."""
    yield "sqlite", f"sqlite:///{folder / 'users.db'}"
    try:
        options = ("--appendonly", "yes", "--appendfsync", "everysec")
        socket = stack.enter_context(redis_server(*options))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return
    yield "redis", f"unix://{socket}"


def size_of(store: UserStore, folder: Path) -> int:
    """Bytes on the disk, or in the server's memory."""
    store.close()
    if store.shown.startswith("sqlite"):
        return sum(path.stat().st_size for path in folder.glob("users.db*"))
    import redis

    return int(redis.Redis(unix_socket_path=store.shown[7:]).info("memory")["used_memory_dataset"])


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each way to ask")
    args = parser.parse_args()
    pa.set_cpu_count(1)
    kinds: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        for kind, url in stores(folder, stack):
            store = open_store(url, RULES)
            kinds[kind] = measure(store, args.users, args.events, args.seconds)
            if "file" not in kinds:
                file = write_file(store, folder / "users.arrow")
                kinds["file"] = reads(file, args.users, args.seconds)
                size = (folder / "users.arrow").stat().st_size
                kinds["file"]["bytes_per_event"] = round(size / args.events, 1)
            kinds[kind]["bytes_per_event"] = round(size_of(store, folder) / args.events, 1)
            print(f"{kind}: {kinds[kind]}", file=sys.stderr)
    figures = {f"{kind}_{name}": value for kind, of in kinds.items() for name, value in of.items()}
    told = {"benchmark": "online", **figures, "users": args.users, "events": args.events}
    print(json.dumps({**told, "processor": processor()}))


if __name__ == "__main__":
    main()
