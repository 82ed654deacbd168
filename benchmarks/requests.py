"""How long does a request take besides the model and the search, however large the catalogue?

Exports a small sequence model over random catalogues of 10,000 and 1,000,000 items, with string
and with integer ids, and recommends for one user and for 512: known by their ids, and as a frame
of histories. Of every call the time of the exported program and of the index is taken off.

`overhead_ms_1m` is the p50 for one user at 1,000,000 items, of the slowest kind of ids and way
to ask; `cases` has all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.event_log import EventLog
from feature_store.examples import write_examples
from feature_store.protocols import LeaveOneOut
from feature_store.schema import Feature, Schema
from feature_store.splits import make_split
from recsys.data.examples import Examples
from recsys.embeddings.options import PerFeature
from recsys.embeddings.tables import materialise
from recsys.export.bundle import write_bundle
from recsys.export.generator import GeneratorExport
from recsys.retrievers.sasrec import SASRec, SASRecConfig
from recsys.serving.index.options import ExactConfig
from recsys.serving.manifest import About
from recsys.serving.recommender import Recommender

SIZES = {"10k": 10_000, "1m": 1_000_000}
USERS, EVENTS, MANY = 2_000, 20, 512
IDS: dict[str, Callable[[np.ndarray], pa.Array]] = {
    "string": lambda numbers: pa.array([f"B{number:09d}" for number in numbers]),
    "int64": pa.array,
}


def clocks() -> np.ndarray:
    """Seconds on the wall, and of this thread on a processor: the latter knows no neighbours."""
    return np.array([time.perf_counter(), time.thread_time()])


class Stopwatch:
    """Adds up the seconds that calls take, by both clocks."""

    def __init__(self) -> None:
        self.seconds = np.zeros(2)

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, its time added."""

        def timed(*args: Any, **options: Any) -> Any:
            start = clocks()
            try:
                return call(*args, **options)
            finally:
                self.seconds += clocks() - start

        return timed


def write_log(folder: Path, ids: pa.Array) -> EventLog:
    """Every user has random items; all are in the catalogue, with a title."""
    schema = Schema(
        user="user_id",
        item="item_id",
        title="title",
        features=(
            Feature(name="user_id", kind="id", side="user", dtype="int64"),
            Feature(name="item_id", kind="id", side="item", dtype=str(ids.type)),  # type: ignore[arg-type]
            Feature(name="title", kind="text", side="item"),
        ),
    )
    log = EventLog.create(folder, schema)
    rng = np.random.default_rng(0)
    items = ids.take(pa.array(rng.integers(0, len(ids), USERS * EVENTS)))
    days = [datetime(2024, 1, 1) + timedelta(days=day) for day in range(EVENTS)]
    users = np.repeat(np.arange(USERS), EVENTS)
    columns = [pa.array(users), items, pa.array(days * USERS, pa.timestamp("us"))]
    log.append(pa.table(columns, names=log.schema.events_schema().names))
    titles = [f"What people read of item {place}" for place in range(len(ids))]
    Catalogue(folder, schema).write("item", pa.table({"item_id": ids, "title": titles}))
    return log


def export(folder: Path, ids: pa.Array) -> Recommender:
    """A recommender of a model without training, which takes as long as any."""
    log = write_log(folder / "log", ids)
    catalogue = Catalogue(log.folder, log.schema)
    with Engine(EngineConfig(threads=1)) as engine:
        split = make_split(engine, log, LeaveOneOut())
        write_examples(engine, split, catalogue, folder / "examples")
    examples = Examples(folder / "examples")
    torch.manual_seed(0)
    config = SASRecConfig(width=16, blocks=1, heads=1, max_length=EVENTS)
    model = SASRec(config, PerFeature(), examples, 0)
    materialise(model)
    part = GeneratorExport(
        model,
        examples,
        examples.candidates("catalogue"),
        index=ExactConfig(),
        golden=2,
        about=About(run="benchmark", model="sasrec"),
    )
    return Recommender(write_bundle(folder / "bundle", {"generator": part}, catalogue))


def overheads(
    watch: Stopwatch, ask: Callable[[], Any], seconds: float, least: int
) -> list[np.ndarray]:
    """Milliseconds of each call by both clocks, without what the watch has seen of them."""
    took: list[np.ndarray] = []
    ask()  # reads what is read once
    until = time.perf_counter() + seconds
    while len(took) < least or (time.perf_counter() < until and len(took) < 1000):
        watch.seconds[:], start = 0, clocks()
        ask()
        took.append((clocks() - start - watch.seconds) * 1000)
    return took


def ways_to_ask(recommender: Recommender, ids: pa.Array) -> dict[str, Callable[[], Any]]:
    """One user and many, who are known or come with their histories; of new users each time."""
    rng = np.random.default_rng(1)

    def users(count: int) -> list[int]:
        return rng.choice(USERS, count, replace=False).tolist()

    def frame(count: int) -> pd.DataFrame:
        drawn = ids.take(pa.array(rng.integers(0, len(ids), count * EVENTS))).to_numpy(False)
        return pd.DataFrame({"history": list(drawn.reshape(count, EVENTS))})

    frames = {count: [frame(count) for _ in range(8)] for count in (1, MANY)}

    def known(count: int) -> Callable[[], Any]:
        return lambda: recommender.recommend(users(count))

    def histories(count: int) -> Callable[[], Any]:
        return lambda: recommender.recommend(requests=frames[count][rng.integers(8)])

    return {
        f"{count}_{name}": way(count)
        for count in (1, MANY)
        for name, way in (("known", known), ("histories", histories))
    }


def measure(folder: Path, ids: pa.Array, seconds: float) -> dict[str, dict[str, float]]:
    """p50 and p99 in milliseconds of every way to ask."""
    recommender = export(folder, ids)
    watch = Stopwatch()
    generator = recommender.generator
    generator.program.forward = watch.timed(generator.program.forward)
    generator.index.search = watch.timed(generator.index.search)  # type: ignore[method-assign]
    cases = {}
    for name, ask in ways_to_ask(recommender, ids).items():
        took = overheads(watch, ask, seconds, least=5)
        (p50, cpu), (p99, _) = np.percentile(took, [50, 99], axis=0).round(3).tolist()
        cases[name] = {"p50_ms": p50, "p99_ms": p99, "p50_cpu_ms": cpu, "calls": len(took)}
        print(f"{len(ids)} {ids.type} {name}: {cases[name]}", file=sys.stderr)
    return cases


def processor() -> str:
    """The processor, and how wide its vectors are."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2] for line in text.splitlines() if "model name" in line]
    name = names[0].strip() if names else platform.machine()
    return f"{name}, {'AVX-512' if 'avx512f' in text else 'AVX2' if 'avx2' in text else 'SSE'}"


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each way to ask")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pa.set_cpu_count(args.threads)
    cases: dict[str, Any] = {}
    for size in args.sizes:
        for kind, make in IDS.items():
            with tempfile.TemporaryDirectory() as folder:
                ids = make(np.arange(SIZES[size]) * 3)
                cases[f"{size}_{kind}"] = measure(Path(folder), ids, args.seconds)
    figures = {}
    for size in args.sizes:
        alike = [ways for name, ways in cases.items() if name.startswith(size)]
        for count, label in (("1_", ""), (f"{MANY}_", f"_{MANY}_users")):
            of_all = [case for ways in alike for n, case in ways.items() if n.startswith(count)]
            figures[f"overhead_ms{label}_{size}"] = max(case["p50_ms"] for case in of_all)
            figures[f"overhead_cpu_ms{label}_{size}"] = max(case["p50_cpu_ms"] for case in of_all)
            figures[f"p99_ms{label}_{size}"] = max(case["p99_ms"] for case in of_all)
    print(
        json.dumps(
            {
                "benchmark": "requests",
                **figures,
                "cases": cases,
                "processor": processor(),
                "threads": args.threads,
            }
        )
    )


if __name__ == "__main__":
    main()
