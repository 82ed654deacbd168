"""How far is what log-Q takes off from what batches hold, where their targets are the negatives?

Nothing is trained: batches are read as in training, and targets taken as the model takes them. The
truth of rows of events is `1 - (1 - s)^n` for n targets, of the share s that an item has of all
that are shuffled with them; of sequences, the share of all batches that hold the item. `error` is
the difference of the logs, less what all items of a batch have in common, which no softmax notices:
the root of its mean square over the items of all batches, less what chance leaves: of so many
batches, or of the same rows in random order. `of_events` is the same where each item is reckoned by
its training events.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np
import torch
from torch import Tensor

from pipelines.ingest import ingest_source
from recsys.config import RunConfig, parse_config
from recsys.data.examples import Examples
from recsys.objectives.negatives import NegativeSampler
from recsys.retrievers.trained import TrainedRetriever
from recsys.runs.build import trainable
from recsys.runs.prepare import prepare

Reckoned = Callable[[Tensor, int], Tensor]
"""Logs of the chances of item rows [n] to be among so many targets."""


class Arm(NamedTuple):
    """A retriever, how it reads, and for how many epochs."""

    retriever: dict[str, Any]
    reader: dict[str, Any]
    epochs: int


ARMS = {
    "two_tower": Arm({"name": "two_tower"}, {"batch_size": 1024}, 4),
    "two_tower, a row group at a time": Arm(
        {"name": "two_tower"}, {"batch_size": 1024, "buffer_row_groups": 1}, 4
    ),
    "multi_interest": Arm({"name": "multi_interest"}, {"batch_size": 32}, 60),
    "sasrec, 50 events": Arm({"name": "sasrec", "max_length": 50}, {"batch_size": 32}, 60),
    "sasrec, 200 events": Arm({"name": "sasrec", "max_length": 200}, {"batch_size": 32}, 60),
}


class Seen(NamedTuple):
    """The targets of every batch, and the block that each was shuffled in."""

    targets: list[Tensor]
    blocks: np.ndarray


class _Drawn(Exception):
    """A model has said what its targets are."""


def config_of(arm: Arm, data: Path, folder: Path) -> RunConfig:
    """A run of an arm, whose targets are its negatives."""
    return parse_config(
        {
            "name": "in_batch",
            "seed": 1,
            "output": str(folder),
            "data": {"source": "movielens", "path": str(data)},
            "split": {"protocol": "leave_one_out"},
            "retriever": {"negative_sampling": "in_batch", "log_q": True, **arm.retriever},
            "reader": arm.reader,
        }
    )


def watch(model: TrainedRetriever, examples: Examples, config: RunConfig, epochs: int) -> Seen:
    """What the model takes for targets, without the training."""
    seen: list[Tensor] = []

    def draw(targets: Tensor, *_: object) -> NoReturn:
        seen.append(targets.clone())
        raise _Drawn

    model.objective.draw = draw  # type: ignore[assignment, method-assign]
    reader = model.training_reader(examples, config.reader, seed=1, rank=0, world=1)
    blocks = []
    for epoch in range(epochs):
        reader.epoch = epoch
        plans = reader._blocks(0)
        blocks += [(epoch, block) for block, plan in enumerate(plans) for _ in plan.sizes]
        for batch in reader:
            try:
                model(batch, len(seen))
            except _Drawn:
                continue
    return Seen(seen, np.unique(blocks, axis=0, return_inverse=True)[1].ravel())


class Held(NamedTuple):
    """Distinct item rows of a batch, the chances to be in it, and what chance adds to the error."""

    rows: Tensor
    chances: Tensor
    noise: float


def truth_of_events(seen: Seen, items: int) -> Iterator[Held]:
    """By the shares of all that a batch was shuffled with."""
    shares: dict[int, Tensor] = {}
    for block in np.unique(seen.blocks):
        held = torch.cat([seen.targets[at] for at in np.flatnonzero(seen.blocks == block)])
        shares[block] = held.bincount(minlength=items).double() / len(held)
    for targets, block in zip(seen.targets, seen.blocks, strict=True):
        rows = targets.unique()
        yield Held(rows, -torch.expm1(len(targets) * torch.log1p(-shares[block][rows])), 0.0)


def truth_of_sequences(seen: Seen, items: int) -> Iterator[Held]:
    """By the share of all batches that hold an item."""
    held = [targets.unique() for targets in seen.targets]
    holding = torch.cat(held).bincount(minlength=items).double()
    for rows in held:
        chances = holding[rows] / len(held)
        yield Held(rows, chances, float(((1 - chances) / holding[rows]).mean()))


def mixed(seen: Seen, epochs: int) -> Seen:
    """The same targets in batches of the same sizes, those of each epoch in random order."""
    rng, each = torch.Generator().manual_seed(0), len(seen.targets) // epochs
    targets: list[Tensor] = []
    for first in range(0, len(seen.targets), each):
        batches = seen.targets[first : first + each]
        every = torch.cat(batches)
        every = every[torch.randperm(len(every), generator=rng)]
        targets += every.split([len(batch) for batch in batches])
    return Seen(targets, seen.blocks)


def squares(seen: Seen, held: Iterator[Held], reckoned: Reckoned) -> float:
    """Mean square of the error, less what chance adds."""
    each = []
    for targets, batch in zip(seen.targets, held, strict=True):
        error = reckoned(batch.rows, len(targets)).double() - batch.chances.log()
        each.append(float(error.var(correction=0)) - batch.noise)
    return float(np.mean(each))


def error(seen: Seen, reckoned: Reckoned, items: int, epochs: int, by_event: bool) -> float:
    """The error of `reckoned`."""
    if not by_event:
        over = squares(seen, truth_of_sequences(seen, items), reckoned)
    else:
        random = mixed(seen, epochs)
        over = squares(seen, truth_of_events(seen, items), reckoned)
        over -= squares(random, truth_of_events(random, items), reckoned)
    return round(max(over, 0.0) ** 0.5, 3)


def main() -> None:
    """Measure every arm; a JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder or archive of MovieLens")
    parser.add_argument("--only", nargs="*", choices=list(ARMS), default=list(ARMS))
    args = parser.parse_args()
    for name in args.only:
        arm = ARMS[name]
        with tempfile.TemporaryDirectory() as folder:
            config = config_of(arm, args.data, Path(folder))
            ingest_source(config.data, config.store_folder)
            examples = prepare(config)
            model = cast(TrainedRetriever, trainable(config, examples))
            seen = watch(model, examples, config, arm.epochs)
            by_event = model.rows_of.per == "event"
            events = NegativeSampler(examples.train_events, "popularity", power=1.0)
            measured = {
                figure: error(seen, sampler.log_expected, examples.num_items, arm.epochs, by_event)
                for figure, sampler in (("error", model.objective.expected), ("of_events", events))
            }
            line = {
                "benchmark": "in_batch",
                "data": args.data.name,
                "arm": name,
                **measured,
                "targets_a_batch": round(float(np.mean([len(t) for t in seen.targets]))),
                "batches": len(seen.targets),
                "blocks_an_epoch": len(np.unique(seen.blocks)) // arm.epochs,
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
