"""How close does full-ranking evaluation come to bare scoring, and how much memory does it take?

Two catalogues, of the size of MovieLens-1M and of Gowalla, hold random vectors and histories of
a like length and popularity. `seconds`: our evaluator over batches that lie ready in memory
ranks the whole catalogue without the seen items, and gives all list metrics at k in {1, 5, 10,
20, 50, 100} by user and on average, with coverage and Gini; no figures that need a catalogue,
slices or bootstrap. `floor_seconds`: the bare matrix product and `torch.topk` at 20, in chunks
as large as the search's own. `rectools_seconds`: the faster of RecTools' two rankers, k = 100,
seen items filtered, without any metric; it runs in an environment of its own, see `make peers`.

Each repetition runs ours and theirs in turn, each in a process of its own that has warmed up;
figures are medians, `peak_rss_mb` (10^6 bytes) the largest of our processes.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.columns import HISTORY, TARGET
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.distributed import Group
from recsys.evaluation.evaluator import Evaluator
from recsys.evaluation.options import EvaluationConfig
from recsys.inputs import Id
from recsys.lists.search import SCORES, USERS
from recsys.retrievers.base import Queries, VectorRetriever, single_interest

PEER = Path(__file__).parent / "peers" / "rectools_ranker.py"
PEER_PYTHON = Path(".venv-peers/bin/python")
WIDTH, FLOOR_K, USER = 64, 20, "user"
GOALS = {"ratio": 2.0, "peak_rss_mb": 2000, "never_slower_than_rectools": True}


@dataclass(frozen=True)
class Size:
    """Users, items and the items of a user: log-normal about a median, within bounds.

    The `last` of them are the targets: a count, or a share below 1.
    """

    users: int
    items: int
    median: float
    spread: float
    shortest: int
    longest: int
    last: float


# lengths as published: 166 ratings a user on average; 34 check-ins, of which a fifth is the test
SIZES = {
    "ml-1m": Size(6_040, 3_706, 92, 1.1, 20, 2_314, 1),
    "gowalla": Size(29_858, 40_981, 21, 1.0, 10, 1_000, 0.2),
}


def generate(size: Size, folder: Path, seed: int = 0) -> None:
    """Write vectors [U, D] and [N, D], and lists of item places as values and offsets."""
    random = np.random.default_rng(seed)
    for name, rows in (("users", size.users), ("items", size.items)):
        np.save(folder / f"{name}.npy", random.standard_normal((rows, WIDTH), dtype=np.float32))
    popularity = (np.arange(size.items) + 10.0) ** -0.8
    popularity /= popularity.sum()
    lengths = size.median * np.exp(size.spread * random.standard_normal(size.users))
    lists: dict[str, list[np.ndarray]] = {"seen": [], "targets": []}
    for length in np.clip(np.rint(lengths), size.shortest, size.longest).astype(int):
        drawn = random.choice(size.items, 2 * length, p=popularity)
        _, first = np.unique(drawn, return_index=True)
        mine = drawn[np.sort(first)][:length]
        cut = len(mine) - max(1, round(size.last if size.last >= 1 else size.last * len(mine)))
        lists["seen"].append(mine[:cut])
        lists["targets"].append(mine[cut:])
    for name, found in lists.items():
        np.save(folder / f"{name}.npy", np.concatenate(found))
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in found])])
        np.save(folder / f"{name}_offsets.npy", offsets)


class Vectors(VectorRetriever):
    """Users and items whose vectors are given."""

    inputs = (Id(USER),)

    def __init__(self, users: Tensor, items: Tensor) -> None:
        super().__init__()
        self.users, self.items = users, items

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """A user's vector, by its place."""
        return single_interest(self.users[inputs[USER]])

    def embed_items(self, rows: Tensor) -> Tensor:
        """An item's vector; its row is its place and one more, as row 0 is the unknown item."""
        return self.items[rows - 1]


def load(folder: Path, name: str) -> Tensor:
    """One of the arrays."""
    return torch.from_numpy(np.load(folder / f"{name}.npy"))


def batches_of(folder: Path, users: int, batch_size: int) -> list[Batch]:
    """The requests, as the reader would hand them over."""
    columns: dict[str, Any] = {USER: np.arange(users)}
    for column, name in ((HISTORY, "seen"), (TARGET, "targets")):
        rows = np.load(folder / f"{name}.npy").astype(np.int64) + 1
        offsets = np.load(folder / f"{name}_offsets.npy").astype(np.int32)
        columns[column] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows))
    requests = Block.of(pa.table(columns))
    starts = range(0, users, batch_size)
    return [requests[at : min(at + batch_size, users)].to_batch() for at in starts]


def floor(users: Tensor, items: Tensor) -> None:
    """What no exact full ranking on torch goes without."""
    chunk = max(1, min(USERS, SCORES // len(items)))
    for vectors in users.split(chunk):
        (vectors @ items.T).topk(FLOOR_K, dim=1)


def measure(folder: Path, threads: int | None) -> dict[str, Any]:
    """Seconds of the evaluator and of the floor, and the memory that the process took."""
    if threads:
        torch.set_num_threads(threads)
    users, items = load(folder, "users"), load(folder, "items")
    config = EvaluationConfig()
    batches = batches_of(folder, len(users), config.batch_size)
    retriever = Vectors(users, items)
    evaluator = Evaluator(config, torch.arange(1, len(items) + 1), exclude_seen=True, user=USER)
    alone = Group(0, 1, torch.device("cpu"))
    seconds: dict[str, list[float]] = {"seconds": [], "floor_seconds": []}
    for _ in range(3):  # the first two warm up memory and threads
        start = time.perf_counter()
        result = evaluator.evaluate(retriever, batches, alone)
        assert len(result.per_user) == len(users) and "NDCG@100" in result.metrics
        middle = time.perf_counter()
        floor(users, items)
        seconds["seconds"].append(middle - start)
        seconds["floor_seconds"].append(time.perf_counter() - middle)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    return {name: found[-1] for name, found in seconds.items()} | {
        "peak_rss_mb": peak,
        "threads": torch.get_num_threads(),
        "seen_per_user": np.mean([len(b.jagged(HISTORY).values()) / len(b) for b in batches]),
    }


def answer(command: list[str]) -> dict[str, Any]:
    """What a process prints in its last line."""
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def compare(size: Size, repetitions: int, threads: int | None) -> dict[str, Any]:
    """The figures of one size."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(size, folder)
        own = [sys.executable, "-m", "benchmarks.evaluation", "--measure", str(folder)]
        own += ["--threads", str(threads)] if threads else []
        for _ in range(repetitions):
            ours.append(answer(own))
            if PEER_PYTHON.exists():
                same = ["--threads", str(int(ours[0]["threads"])), "--k", "100"]
                theirs.append(answer([str(PEER_PYTHON), str(PEER), str(folder), *same]))
    median = {name: statistics.median(one[name] for one in ours) for name in ours[0]}
    rivals = {
        name: round(statistics.median(one[name] for one in theirs), 3)
        for name in (theirs[0] if theirs else ())
    }
    return {
        "users": size.users,
        "items": size.items,
        "width": WIDTH,
        "seen_per_user": round(median["seen_per_user"], 1),
        "seconds": round(median["seconds"], 4),
        "floor_seconds": round(median["floor_seconds"], 4),
        "ratio": round(median["seconds"] / median["floor_seconds"], 3),
        "peak_rss_mb": round(max(one["peak_rss_mb"] for one in ours)),
        "rectools_seconds": min(rivals.values()) if rivals else None,
        "rectools_rankers": rivals or None,
    }


def main() -> None:
    """Measure every size in turn and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of both sides (default: torch's own choice)")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.threads)))
        return
    if not PEER_PYTHON.exists():
        print(f"{PEER_PYTHON} is missing: run `make peers` to compare", file=sys.stderr)
    found = {}
    for name in args.sizes:
        print(f"measuring {name}", file=sys.stderr)
        found[name] = compare(SIZES[name], args.repetitions, args.threads)
    print(
        json.dumps(
            {
                "benchmark": "evaluation",
                "ratio": max(one["ratio"] for one in found.values()),
                "goals": GOALS,
                "sizes": found,
                "threads": args.threads or torch.get_num_threads(),
                "repetitions": args.repetitions,
            }
        )
    )


if __name__ == "__main__":
    main()
