"""How fast does a server answer, and how much of that is the search?

Exports a small sequence model over a million items whose vectors lie in clusters, starts `recsys
serve` on it, and asks `/recommend` over loopback, k = 10, from a process of its own, on 1, 8 and 64
connections that each ask again as soon as they were answered. Half of the questions are ids of
known users, half are histories of 20 items. Client and server share the processors.

`p99_ms_64` and `requests_per_second_64` are those of 64 connections, `errors` all answers but 200;
`connections` has all of them, with the seconds that program and search alone take for as many
questions in one batch.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pyarrow as pa
import torch

from benchmarks.requests import EVENTS, USERS, processor, write_log
from benchmarks.serving_client import Load
from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.examples import write_examples
from feature_store.protocols import LeaveOneOut
from feature_store.splits import make_split
from recsys.data.examples import Examples
from recsys.embeddings.options import PerFeature
from recsys.embeddings.tables import materialise
from recsys.export.bundle import write_bundle
from recsys.export.generator import GeneratorExport
from recsys.retrievers.sasrec import SASRec, SASRecConfig
from recsys.serving.index.options import (
    ExactConfig,
    HNSWConfig,
    IndexConfig,
    IVFConfig,
    PromiseConfig,
)
from recsys.serving.manifest import About
from recsys.serving.recommender import Recommender

WIDTH, PER_CLUSTER, K = 64, 250, 10
INDICES: dict[str, IndexConfig | PromiseConfig] = {
    "exact": ExactConfig(),
    "hnsw": HNSWConfig(recall_target=0.5),
    "ivf": IVFConfig(codes="fp16", recall_target=0.5),
    "promise": PromiseConfig(),
}


def clustered(items: int) -> torch.Tensor:
    """Vectors [n, D] around centres of their own."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(max(1, items // PER_CLUSTER), WIDTH, generator=generator)
    own = torch.randint(len(centres), (items,), generator=generator)
    return centres[own] + 0.5 * torch.randn(items, WIDTH, generator=generator)


def export(folder: Path, items: int, index: IndexConfig | PromiseConfig) -> Path:
    """The bundle of a model without training, whose items lie in clusters."""
    log = write_log(folder / "log", pa.array(np.arange(items)))
    catalogue = Catalogue(log.folder, log.schema)
    with Engine(EngineConfig(threads=1)) as engine:
        split = make_split(engine, log, LeaveOneOut())
        write_examples(engine, split, catalogue, folder / "examples")
    examples = Examples(folder / "examples")
    torch.manual_seed(0)
    config = SASRecConfig(width=WIDTH, blocks=1, heads=1, max_length=EVENTS)
    model = SASRec(config, PerFeature(), examples, 0)
    materialise(model)
    with torch.no_grad():
        table = next(w for w in model.parameters() if w.shape == (items + 1, WIDTH))
        table[1:] = clustered(items)
    part = GeneratorExport(
        model,
        examples,
        examples.candidates("catalogue"),
        index=index,
        golden=64,
        about=About(run="benchmark", model="sasrec"),
    )
    write_bundle(folder / "bundle", {"generator": part}, catalogue)
    return folder / "bundle"


def questions(items: int, count: int = 2000) -> list[bytes]:
    """Bodies: known users and histories in turn."""
    rng = np.random.default_rng(1)
    bodies: list[dict[str, Any]] = []
    for place in range(count):
        history = rng.integers(0, items, EVENTS).tolist()
        bodies.append({"user": int(rng.integers(USERS))} if place % 2 else {"history": history})
    return [json.dumps({**body, "k": K}).encode() for body in bodies]


def of_the_search(recommender: Recommender, batch: int, times: int = 50) -> dict[str, float]:
    """Milliseconds, p50, of program and index for a batch of known users."""
    rng, generator = np.random.default_rng(2), recommender.generator
    took = []
    for _ in range(times):
        users = rng.choice(USERS, batch, replace=False).tolist()
        inputs, seen = recommender.encode(recommender.requests_of(users))
        start = time.perf_counter()
        queries = generator.queries(inputs)
        middle = time.perf_counter()
        generator.search(queries, K, seen)
        took.append((middle - start, time.perf_counter() - middle))
    program, search = (np.median(np.array(took), axis=0) * 1000).round(3).tolist()
    return {"program_ms": program, "search_ms": search}


class Server:
    """`recsys serve` in a process of its own."""

    def __init__(self, bundle: Path, *options: str) -> None:
        with socket.socket() as asked:
            asked.bind(("127.0.0.1", 0))
            self.port = int(asked.getsockname()[1])
        words = ["-m", "pipelines.cli", "serve", str(bundle), "--port", str(self.port), *options]
        self._process = subprocess.Popen([sys.executable, *words])
        for _ in range(600):
            try:
                with urlopen(f"http://127.0.0.1:{self.port}/readyz"):
                    return
            except OSError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.2)
        self.stop()
        raise SystemExit("the server does not answer")

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def kill(self) -> None:
        """End it at once, whatever it does."""
        self._process.kill()
        self._process.wait()

    def cpu(self) -> float:
        """Seconds that its threads have computed, those of its workers, too."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        spent = 0
        for process in (self.pid, *children):
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            spent += int(fields[11]) + int(fields[12])
        return spent / os.sysconf("SC_CLK_TCK")

    def stop(self) -> int:
        """Its status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--index", choices=INDICES, default="ivf")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each number of connections")
    parser.add_argument("--folder", type=Path, help="keeps the bundle for another time")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="of recsys serve")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        bundle = folder / "bundle"
        if not bundle.exists():
            folder.mkdir(parents=True, exist_ok=True)
            export(folder, args.items, INDICES[args.index])
        import faiss

        faiss.omp_set_num_threads(1)
        recommender = Recommender.open(bundle, verify=False)
        index = recommender.generator.record.index
        alone = {count: of_the_search(recommender, count) for count in args.connections}
        del recommender
        server = Server(bundle, *args.options)
        try:
            bodies = questions(args.items)
            time.sleep(2.0)  # until all workers have opened the bundle
            Load(server.port, bodies).run(args.connections[-1], 2.0)  # warms up
            cases = {}
            for count in args.connections:
                before = server.cpu()
                asked = Load(server.port, bodies).run(count, args.seconds)
                spent = (server.cpu() - before) / asked["requests"] * 1000
                cases[str(count)] = {**asked, "server_cpu_ms": round(spent, 3), **alone[count]}
                print(f"{count} connections: {cases[str(count)]}", file=sys.stderr)
        finally:
            status = server.stop()
    last = str(args.connections[-1])
    print(
        json.dumps(
            {
                "benchmark": "serving",
                f"p99_ms_{last}": cases[last]["p99_ms"],
                f"requests_per_second_{last}": cases[last]["requests_per_second"],
                "errors": sum(case["errors"] for case in cases.values()),
                "connections": cases,
                "items": args.items,
                "width": WIDTH,
                "index": str(index.config),
                "recall_at_100": index.recall_at_100,
                "options": args.options,
                "status_of_the_stop": status,
                "processor": processor(),
                "processors": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    main()
