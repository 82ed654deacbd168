"""autofaiss in an environment of its own: `build FOLDER MEGABYTES RECALL K`, or `measure` likewise.

FOLDER has items.npy, queries.npy and exact.npy. It chooses the index and its effort by itself; then
the effort is doubled from the least on until it finds RECALL of the exact K best.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np


class Rotation(faiss.OPQMatrix):
    """By the names of arguments that autofaiss 2.18 gives, which FAISS 1.15 does not know."""

    def __init__(self, d: int, M: int = 1, d2: int = -1) -> None:
        super().__init__(d, M, d2)


faiss.OPQMatrix = Rotation
BATCH, ALONE, REPETITIONS = 256, 30, 3
EFFORTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def build(folder: Path, megabytes: int) -> dict[str, Any]:
    """Whatever it makes of so much memory."""
    from autofaiss import build_index
    from autofaiss.external.optimize import get_optimal_index_keys_v2

    path = folder / f"autofaiss_{megabytes}.index"
    items = np.load(folder / "items.npy")
    key = get_optimal_index_keys_v2(*items.shape, f"{megabytes}MB")[0]
    if not path.exists():
        build_index(
            items,
            index_path=str(path),
            index_infos_path=str(path.with_suffix(".json")),
            max_index_memory_usage=f"{megabytes}MB",
            current_memory_available="8GB",
            metric_type="ip",
            nb_cores=int(os.environ.get("OMP_NUM_THREADS", "1")),
            verbose=logging.ERROR,
        )
    return {"index": key}


def measure(folder: Path, megabytes: int, wanted: float, k: int) -> dict[str, Any]:
    """As it has tuned itself, and with the least effort that finds enough."""
    faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    path = folder / f"autofaiss_{megabytes}.index"
    infos = json.loads(path.with_suffix(".json").read_text())
    index = faiss.read_index(str(path))
    queries, exact = (np.load(folder / f"{name}.npy") for name in ("queries", "exact"))
    space = faiss.ParameterSpace()
    space.set_index_parameters(index, infos["index_param"])
    tuned = recall_of(index, queries, exact, k), rate(index, queries, k)
    name = "efSearch" if "HNSW" in infos["index_key"].split(",")[0][:4] else "nprobe"
    for effort in EFFORTS:
        space.set_index_parameter(index, name, effort)
        recall = recall_of(index, queries, exact, k)
        if recall >= wanted:
            break
    alone = []
    for query in queries[:ALONE]:
        started = time.perf_counter()
        index.search(query[None], k)
        alone.append(time.perf_counter() - started)
    return {
        "index": infos["index_key"],
        "effort": f"{name}={effort}",
        "recall": round(recall, 4),
        "queries_per_second": round(rate(index, queries, k), 1),
        "milliseconds_alone": round(1e3 * statistics.median(alone), 4),
        "bytes_per_item": round(path.stat().st_size / index.ntotal, 2),
        "tuned": infos["index_param"],
        "tuned_recall": round(tuned[0], 4),
        "tuned_queries_per_second": round(tuned[1], 1),
    }


def recall_of(index: faiss.Index, queries: np.ndarray, exact: np.ndarray, k: int) -> float:
    """Share of the exact k best that it finds."""
    _, nearest = index.search(queries, k)
    return float(np.mean([len({*a} & {*b}) / k for a, b in zip(exact, nearest, strict=True)]))


def rate(index: faiss.Index, queries: np.ndarray, k: int) -> float:
    """Queries per second in batches, the fastest of a few."""
    took = []
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        for first in range(0, len(queries), BATCH):
            index.search(queries[first : first + BATCH], k)
        took.append(time.perf_counter() - started)
    return len(queries) / min(took)


if __name__ == "__main__":
    verb, at, memory, recall, length = sys.argv[1:]
    if verb == "build":
        print(json.dumps(build(Path(at), int(memory))))
    else:
        print(json.dumps(measure(Path(at), int(memory), float(recall), int(length))))
