"""Two processes work together until the second is killed; the first says what it sees."""

from __future__ import annotations

import os
import signal
import sys
import tempfile

import torch
import torch.distributed as dist

from feature_store.errors import DataError
from recsys import distributed
from recsys.distributed import join

if __name__ == "__main__":
    store = tempfile.mktemp()
    begin = dist.init_process_group
    rank = 0 if (child := os.fork()) else 1

    def begin_here(backend: str) -> None:
        """As torchrun would have it, through a file."""
        begin(backend, init_method=f"file://{store}", rank=rank, world_size=2)

    distributed.dist.init_process_group = begin_here  # type: ignore[assignment]
    os.environ.update(RANK=str(rank), WORLD_SIZE="2")
    try:
        with join("cpu") as group:
            group.barrier()
            if rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            print(child, flush=True)
            while True:
                group.sum(torch.ones(1))
    except DataError as error:
        sys.exit(str(error))
