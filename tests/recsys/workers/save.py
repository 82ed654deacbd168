"""Writes checkpoints one after the other, to be killed at it.

For every line FOLDER COPY_MB of its input it forks a process that says its id and then, for ever,
each step that it saves; once that was killed it says "dead". Imports take longer than the rest.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from recsys.distributed import join
from recsys.training import checkpoint
from recsys.training.background import Writer
from recsys.training.growth import describe


def write(folder: Path, copy_mb: float) -> None:
    """Save without an end, from the newest step on."""
    model = torch.nn.Linear(1000, 500)
    last = checkpoint.newest(folder)
    step = 0 if last is None else checkpoint.read_state(last)["step"]
    with join("cpu") as group:
        writer = Writer(folder, group, keep=2, copy_mb=copy_mb)
        while True:
            step += 1
            torch.nn.init.constant_(model.weight, step)
            tensors = checkpoint.tensors_of(model, None, group)
            best = step - step % 10 or 1
            state = {"step": step, "model": describe(model, None), checkpoint.BEST: best}
            writer.save(step, tensors, state)
            os.write(1, f"{step}\n".encode())  # at once: a kill leaves no half line


if __name__ == "__main__":
    for line in sys.stdin:
        folder, copy_mb = line.split()
        child = os.fork()
        if not child:
            print(os.getpid(), flush=True)
            write(Path(folder), float(copy_mb))
        os.waitpid(child, 0)
        print("dead", flush=True)
