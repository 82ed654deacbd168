"""Writes checkpoints one after the other for ever: save.py FOLDER COPY_MB."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from recsys.distributed import join
from recsys.training import checkpoint
from recsys.training.background import Writer
from recsys.training.growth import describe

if __name__ == "__main__":
    folder, copy_mb = Path(sys.argv[1]), float(sys.argv[2])
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
            print(step, flush=True)
