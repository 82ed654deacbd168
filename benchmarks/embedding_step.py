"""How fast does a large embedding table train, and how large may it be?

One table of `--rows` x `--width` (1 M x 64), batches of 4,096 rows with bags of 20 random ids each:
the trainer's own step (fused row-wise Adagrad) in turn with `nn.EmbeddingBag(sparse=True)` under
SparseAdam and with the same under dense Adam. `speedup` is over SparseAdam, medians of all.
`bandwidth_share` is the bytes that a step must move (rows read, gradients, rows read and written
again) per second, over those that a large copy moves here.

Then the largest table of width 32 that trains within `--memory` GB, each size in a process of its
own; memory is the most that the process ever held.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn
from torch.nn import functional as F
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from benchmarks.timing import copy_bandwidth, timed
from recsys.data.batch import Batch
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader
from recsys.distributed import Group, join
from recsys.embeddings.layout import FeatureSpec, make_layout
from recsys.embeddings.options import PerFeature
from recsys.embeddings.tables import Embeddings
from recsys.model import Loss, TrainedModel
from recsys.training.options import TrainerConfig
from recsys.training.trainer import Trainer

DISTINCT = 16  # batches, used in turn
LARGE_WIDTH = 32
BAG, LABEL = "bag", "label"


class OneTable(TrainedModel):
    """A click model of one bag: the mean of its vectors, and a line."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        spec = FeatureSpec(BAG, BAG, rows, pooled=True)
        self.embeddings = Embeddings(make_layout([spec], width, PerFeature(shard_above_mb=0)))
        self.line = nn.Linear(width, 1)

    def forward(self, batch: Batch, step: int) -> Loss:
        """Binary cross-entropy."""
        vectors = self.embeddings({}, {BAG: batch.jagged(BAG)})[BAG]
        losses = F.binary_cross_entropy_with_logits(
            self.line(vectors).squeeze(1), batch.label(LABEL), reduction="none"
        )
        return Loss(losses.sum(), losses.new_tensor(len(losses)))


def batches(rows: int, size: int, ids: int, device: torch.device) -> list[Batch]:
    """Random bags with random labels."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(DISTINCT):
        values = torch.randint(1, rows, (size * ids,), generator=generator)
        bags = KeyedJaggedTensor([BAG], values, lengths=torch.full((size,), ids))
        labels = torch.randint(0, 2, (size, 1), generator=generator).float()
        none = torch.empty(size, 0, dtype=torch.int64)
        batch = Batch(none, (), bags, none.float(), labels=labels, label_names=(LABEL,))
        found.append(batch.to(device))
    return found


def our_trainer(rows: int, width: int, group: Group, folder: Path) -> Trainer:
    """A trainer that gets its batches from elsewhere."""
    file = folder / "rows.parquet"
    pq.write_table(pa.table({"label": np.zeros(1)}), file)
    reader = Reader(file, ReaderConfig(batch_size=1))
    return Trainer(OneTable(rows, width), reader, TrainerConfig(), group, folder)


def plain_step(
    rows: int, width: int, device: torch.device, *, sparse: bool
) -> Callable[[Batch], None]:
    """torch's own bag, under SparseAdam or dense Adam."""
    bag = nn.EmbeddingBag(rows, width, mode="mean", sparse=sparse, device=device)
    line = nn.Linear(width, 1, device=device)
    kind: Any = torch.optim.SparseAdam if sparse else torch.optim.Adam
    optimizers = [kind(list(bag.parameters())), torch.optim.Adam(line.parameters())]

    def step(batch: Batch) -> None:
        found = batch.jagged(BAG)
        logits = line(bag(found.values(), found.offsets()[:-1]))
        loss = F.binary_cross_entropy_with_logits(logits.squeeze(1), batch.label(LABEL))
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        loss.item()  # as the trainer does, to see whether it is finite

    return step


def seconds(step: Callable[[Batch], None], found: list[Batch], steps: int) -> float:
    """Median seconds of a step."""
    return statistics.median(
        timed(step, found[number % DISTINCT], device=found[0].ids.device) for number in range(steps)
    )


def bytes_of_step(size: int, ids: int, width: int) -> int:
    """Rows read; their sum written and its gradient read; rows and their state read and written."""
    looked_up = size * ids
    return 4 * (looked_up * width + 2 * size * width + looked_up * (2 * width + 2))


def compare(args: argparse.Namespace, group: Group, folder: Path) -> dict[str, Any]:
    """All three in turn, several times."""
    found = batches(args.rows, args.batch, args.ids, group.device)
    ways = {
        "ours": our_trainer(args.rows, args.width, group, folder).step,
        "sparse_adam": plain_step(args.rows, args.width, group.device, sparse=True),
        "dense_adam": plain_step(args.rows, args.width, group.device, sparse=False),
    }
    steps = {"ours": args.steps, "sparse_adam": args.steps, "dense_adam": max(3, args.steps // 5)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(args.repetitions + 1):
        for name, step in ways.items():
            taken = seconds(step, found, steps[name])
            if repetition:  # the first steps touch fresh memory
                times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    moved = bytes_of_step(args.batch, args.ids, args.width) / medians["ours"]
    return {
        "samples_per_second": round(args.batch / medians["ours"]),
        "step_ms": {name: round(1e3 * value, 2) for name, value in medians.items()},
        "speedup": round(medians["sparse_adam"] / medians["ours"], 2),
        "speedup_over_dense_adam": round(medians["dense_adam"] / medians["ours"], 2),
        "bandwidth_share": round(moved / copy_bandwidth(group.device, args.copied), 3),
    }


def try_rows(rows: int, args: argparse.Namespace) -> dict[str, Any]:
    """Train a table of so many rows here, and say how fast and with how much memory."""
    with tempfile.TemporaryDirectory() as name, join(args.device) as group:
        started = perf_counter()
        step = our_trainer(rows, LARGE_WIDTH, group, Path(name)).step
        made = perf_counter() - started
        found = batches(rows, args.batch, args.ids, group.device)
        seconds(step, found, args.steps)
        taken = seconds(step, found, args.steps)
        if group.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "rows": rows,
        "peak_gb": round(peak / 1e9, 2),
        "samples_per_second": round(args.batch / taken),
        "step_ms": round(1e3 * taken, 2),
        "seconds_to_start": round(made, 1),
    }


def largest(args: argparse.Namespace) -> dict[str, Any]:
    """The largest of a few sizes whose process stays within the memory."""
    full = args.memory * 1e9 / (4 * LARGE_WIDTH + 4)  # a row, and its state
    best: dict[str, Any] = {}
    for share in (0.42, 0.75, 0.9, 0.93, 0.96, 0.98):
        rows = int(full * share / 1e6) * 1_000_000
        command = [sys.executable, "-m", "benchmarks.embedding_step", "--try-rows", str(rows)]
        options = ["--device", args.device, "--steps", str(args.steps), "--batch", str(args.batch)]
        done = subprocess.run([*command, *options], capture_output=True, text=True)
        if done.returncode:
            print(f"{rows:,} rows: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            break
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"{rows:,} rows: {found}", file=sys.stderr)
        if found["peak_gb"] > args.memory:
            break
        best = found
    return best


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--ids", type=int, default=20, help="ids in the bag of a row")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--copied", type=int, default=1 << 28, help="numbers of the large copy")
    parser.add_argument("--memory", type=float, default=16, help="GB (10^9) of the largest table")
    parser.add_argument("--no-largest", action="store_true", help="compare speeds alone")
    parser.add_argument("--try-rows", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.try_rows:
        print(json.dumps(try_rows(args.try_rows, args)))
        return
    with tempfile.TemporaryDirectory() as name, join(args.device) as group:
        found = compare(args, group, Path(name))
    shape = {name: getattr(args, name) for name in ("rows", "width", "batch", "ids", "device")}
    if not args.no_largest:
        found[f"largest_within_{args.memory:g}_gb"] = largest(args)
    print(
        json.dumps(
            {
                "benchmark": "embedding_step",
                **found,
                **shape,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
