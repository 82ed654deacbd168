"""How long does training wait for a checkpoint?

For one table of each size (bags of 20 ids, batches of 4,096, as in `embedding_step`): the median
step; by how much a save and the step after it take longer than a step when the state is copied
and written beside the training; and when it is written at once. `stall_steps` is in steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.embedding_step import batches, our_trainer, seconds
from recsys.distributed import Group, join
from recsys.training import checkpoint
from recsys.training.growth import describe

SIZES = {"3.2 MB": (12_500, 64), "32 MB": (125_000, 64), "256 MB": (1_000_000, 64)}


def measure(rows: int, width: int, group: Group, folder: Path, saves: int) -> dict[str, float]:
    """Milliseconds, medians."""
    found = batches(rows, 4096, 20, group.device)
    trainer = our_trainer(rows, width, group, folder)
    writer = trainer.writer  # whose copies the trainer's step waits for
    waits: dict[str, list[float]] = {"beside": [], "at_once": []}
    seconds(trainer.step, found, 16)
    step = seconds(trainer.step, found, 48)
    state = {"model": describe(trainer.model, trainer.optimizer), checkpoint.BEST: None}
    for way, copy_mb in (("beside", 1e6), ("at_once", 0)):
        writer.folder, writer.keep, writer.copy_mb = folder / way, 1, copy_mb
        writer.reserve(checkpoint.tensors_of(trainer.model, trainer.optimizer, group))
        writer.wait()
        for number in range(saves):
            start = time.perf_counter()
            tensors = checkpoint.tensors_of(trainer.model, trainer.optimizer, group)
            writer.save(number + 1, tensors, state)
            trainer.step(found[0])
            # the step after a save waits for what is still being copied
            waits[way].append(time.perf_counter() - start - step)
            seconds(trainer.step, found, 4)  # the training goes on meanwhile
            writer.wait()
    beside, at_once = (statistics.median(waits[way]) for way in ("beside", "at_once"))
    return {
        "step_ms": round(1e3 * step, 2),
        "stall_ms": round(1e3 * beside, 2),
        "stall_steps": round(beside / step, 2),
        "at_once_ms": round(1e3 * at_once, 2),
    }


def main() -> None:
    """Measure every size and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--saves", type=int, default=7)
    args = parser.parse_args()
    found = {}
    with join(args.device) as group:
        for size, (rows, width) in SIZES.items():
            with tempfile.TemporaryDirectory() as name:
                found[size] = measure(rows, width, group, Path(name), args.saves)
            print(f"{size}: {found[size]}", file=sys.stderr)
    print(
        json.dumps(
            {
                "benchmark": "checkpoint_stall",
                "device": args.device,
                "tables": found,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
