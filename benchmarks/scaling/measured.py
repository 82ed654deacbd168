"""What one process does here, and what two do: `python -m benchmarks.scaling.measured`, alone or
under torchrun, prints one JSON line.

A click model of histories, with tables split by rows: the trainer's own step at two batch sizes,
its dense part alone, and exchanges between the processes. Histories are looked up as bags, whose
vectors TorchRec sums, or id by id. Seconds are a processor's, the fewest of all steps, so that what
else runs does not count, nor does waiting for the other process.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from benchmarks.scaling.cost import Rates, Work, moved
from recsys.data.batch import Batch
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader
from recsys.distributed import Group, join
from recsys.embeddings.layout import FeatureSpec, Layout, make_layout
from recsys.embeddings.options import PerFeature, TableConfig
from recsys.embeddings.tables import Embeddings
from recsys.model import Loss, TrainedModel
from recsys.training.memory import kept_memory
from recsys.training.options import TrainerConfig
from recsys.training.trainer import Trainer

HISTORY, USER, ITEM, LABEL = "history", "user", "item", "label"
KINDS = {"bags": True, "ids": False}  # whether TorchRec sums the vectors of a list
HIDDEN = (256, 128)
DISTINCT = 4  # batches, used in turn
SHARDING = "row_wise"  # of the tables that are measured: half of each in either process


def layout_of(rows: int, width: int, pooled: bool, sharding: Any = "auto") -> Layout:
    """Users, and a tenth as many items, whose table is also that of histories."""
    items = max(2, rows // 10)
    specs = [
        FeatureSpec(name, table, count, pooled)
        for name, table, count in (
            (USER, USER, rows),
            (ITEM, ITEM, items),
            (HISTORY, ITEM, items),
        )
    ]
    tables = {name: TableConfig(sharding=sharding) for name in (USER, ITEM)}
    return make_layout(specs, width, PerFeature(shard_above_mb=0, tables=tables))


def tower(width: int) -> nn.Sequential:
    """What is dense: three vectors in, a logit out."""
    layers: list[nn.Module] = []
    for wide, narrow in zip((3 * width, *HIDDEN), (*HIDDEN, 1), strict=True):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def work_of(batch: int, history: int, width: int, pooled: bool) -> Work:
    """A step's work: of weights, two operations forward and four backward an example."""
    weights = sum(p.numel() for p in tower(width).parameters())
    vectors = {USER: 1.0, ITEM: 2.0 if pooled else 1.0 + history}
    ids = {USER: 1.0, ITEM: 1.0 + history}
    return Work(batch, ids, vectors, operations=6.0 * weights, dense=4 * weights)


class Clicks(TrainedModel):
    """A user, an item, and the mean of a history through a tower."""

    def __init__(self, rows: int, width: int, pooled: bool) -> None:
        super().__init__()
        self.pooled = pooled
        self.embeddings = Embeddings(layout_of(rows, width, pooled, SHARDING))
        self.tower = tower(width)

    def forward(self, batch: Batch, step: int) -> Loss:
        """Binary cross-entropy."""
        user, item, history = batch.ids[:, :1], batch.ids[:, 1:2], batch.ids[:, 2:]
        asked = {USER: user, ITEM: item, HISTORY: history}
        if self.pooled:
            found = self.embeddings({}, asked)
        else:
            found = {name: of.mean(1) for name, of in self.embeddings(asked).items()}
        joint = torch.cat([found[name] for name in (USER, ITEM, HISTORY)], 1)
        logits = self.tower(joint).squeeze(1)
        losses = F.binary_cross_entropy_with_logits(logits, batch.label(LABEL), reduction="none")
        return Loss(losses.sum(), losses.new_tensor(len(losses)))


def batches(rows: int, size: int, history: int, seed: int) -> list[Batch]:
    """Random ids with random labels."""
    random = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(DISTINCT):
        user = torch.randint(1, rows, (size, 1), generator=random)
        items = torch.randint(1, max(2, rows // 10), (size, 1 + history), generator=random)
        labels = torch.randint(0, 2, (size, 1), generator=random).float()
        ids = torch.cat([user, items], 1)
        names = (USER, ITEM, *(f"{HISTORY}{place}" for place in range(history)))
        made.append(Batch(ids, names, None, labels[:, :0], labels=labels, label_names=(LABEL,)))
    return made


def fewest(work: Callable[[int], Any], steps: int) -> float:
    """A processor's seconds of a call; the first ones touch fresh memory."""
    taken = []
    for number in range(steps + 2):
        started = time.process_time()
        work(number)
        taken.append(time.process_time() - started)
    return max(min(taken[2:]), 1e-9)


def dense_seconds(size: int, width: int, steps: int) -> float:
    """A step of the tower alone, forward and backward."""
    net, vectors = tower(width), torch.randn(size, 3 * width, requires_grad=True)

    def step(number: int) -> None:
        net(vectors).sum().backward()

    return fewest(step, steps)


def exchange_rates(group: Group, size: int, steps: int) -> dict[str, float]:
    """Bytes a second of an exchange with the others, and the seconds of one of next to nothing."""
    if group.world == 1:
        return {}

    def seconds(numbers: int) -> float:
        source = torch.ones(numbers * group.world)
        target = torch.empty_like(source)
        exchange = lambda _: dist.all_to_all_single(target, source)  # noqa: E731
        return fewest(exchange, steps)

    latency, taken = seconds(1), seconds(size)
    sent = 4 * size * (group.world - 1)
    return {"link": sent / max(taken - latency, 1e-9), "latency": latency}


def peaks(numbers: int, size: int) -> dict[str, float]:
    """What nothing beats: bytes a second of a large copy, read and written, and operations a second
    of a product of square matrices."""
    source, matrix = torch.ones(numbers), torch.randn(size, size)
    target = torch.empty_like(source)
    return {
        "copies": 2 * source.nbytes / fewest(lambda _: target.copy_(source), 5),
        "products": 2 * size**3 / fewest(lambda _: torch.mm(matrix, matrix), 5),
    }


def measure(args: argparse.Namespace, group: Group, folder: Path) -> dict[str, float]:
    """Seconds of steps, whole and small, of every kind, and what else the rates are made of."""
    file = folder / f"rows{group.rank}.parquet"
    pq.write_table(pa.table({LABEL: np.zeros(1)}), file)
    taken = {}
    for kind, pooled in KINDS.items():
        torch.manual_seed(0)
        model, reader = Clicks(args.rows, args.width, pooled), Reader(file, ReaderConfig())
        trainer = Trainer(model, reader, TrainerConfig(), group, folder)
        with kept_memory():
            for name, size in (("step", args.batch), ("small_step", args.batch // 8)):
                found = batches(args.rows, size, args.history, group.rank)
                step = partial(_step, trainer, found)
                taken[f"{kind}_{name}"] = fewest(step, args.steps)
    return {
        **taken,
        "dense": dense_seconds(args.batch, args.width, args.steps),
        **exchange_rates(group, args.batch * args.history * args.width // 2, args.steps),
        **peaks(args.copied, args.product),
    }


def _step(trainer: Trainer, found: list[Batch], number: int) -> None:
    trainer.step(found[number % DISTINCT])


def rates_of(told: dict[str, float], kind: str, work: Work, width: int) -> Rates:
    """Rates from the steps of one process: what a small step takes too is overhead, and what the
    tower does not take goes to tables."""
    step, small = told[f"{kind}_step"], told[f"{kind}_small_step"]
    slope = (step - small) / (work.batch - work.batch // 8)
    overhead = max(step - slope * work.batch, 0.0)
    tables = max(step - overhead - told["dense"], 1e-9)
    lookups, vectors = (work.batch * sum(of.values()) for of in (work.ids, work.vectors))
    return Rates(
        lookup=moved(width, lookups, vectors) / tables,
        dense=work.batch * work.operations / told["dense"],
        overhead=overhead,
    )


def arguments() -> argparse.ArgumentParser:
    """Sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="users; a tenth of it, items")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4096, help="examples for each process")
    parser.add_argument("--history", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--copied", type=int, default=1 << 26, help="numbers of the large copy")
    parser.add_argument("--product", type=int, default=1024, help="rows of the large product")
    return parser


def main() -> None:
    """Measure with whoever is there; the first process prints."""
    args = arguments().parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, join("cpu") as group:
        told = measure(args, group, Path(name))
        slowest = group.gather(told)
        if group.leads:
            print(json.dumps({key: max(one[key] for one in slowest) for key in told}))


if __name__ == "__main__":
    main()
