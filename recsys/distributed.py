"""join() makes a process group; alone is a group of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from feature_store.errors import ConfigError
from recsys.members import Member, naming_the_lost


@dataclass(frozen=True)
class Group:
    """The processes that train together, and this one's rank and device.

    `background` is a second gloo group: files are written beside the training, and what their
    writers say to each other must not mix with what the training says.
    """

    rank: int
    world: int
    device: torch.device
    background: dist.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """True on the one process that writes files and prints."""
        return self.rank == 0

    @property
    def local_world(self) -> int:
        """Processes on this host."""
        return min(self.world, int(os.environ.get("LOCAL_WORLD_SIZE", self.world)))

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def gather(self, value: Any, *, background: bool = False) -> list[Any]:
        """Any object of every process, in the order of ranks."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.background if background else None)
        return values

    def largest(self, value: int, device: torch.device) -> int:
        """The largest value over all processes; `device` is where tensors are exchanged."""
        if self.world == 1:
            return value
        maximum = torch.tensor(value, device=device)
        dist.all_reduce(maximum, op=dist.ReduceOp.MAX)
        return int(maximum)

    def concat(self, value: Tensor) -> Tensor:
        """A one-dimensional tensor of every process, one behind the other."""
        if self.world == 1:
            return value
        return torch.cat([tensor.to(value.device) for tensor in self.gather(value.cpu())])

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def join(device: str = "auto") -> Iterator[Group]:
    """Enter the group that `torchrun` describes in the environment, or a group of one.

    Raises ConfigError when `device` is "cuda" and there is none, and within it DataError when
    another process has ended.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("trainer.device = 'cuda', but torch sees no GPU: see `recsys doctor`")
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    local = int(os.environ.get("LOCAL_RANK", "0"))
    where = torch.device("cuda", local) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(where)
    backend = "nccl" if use_cuda else "gloo"
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        background = dist.new_group(backend="gloo")
        group = Group(dist.get_rank(), dist.get_world_size(), where, background)
        with naming_the_lost(group.rank, group.gather(Member.here())):
            yield group
    finally:
        dist.destroy_process_group()


def current_group() -> Group:
    """The group that this process has joined; alone when it has joined none."""
    if not dist.is_initialized():
        return Group(0, 1, torch.device("cpu"))
    return Group(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
