"""join() makes a process group, shard() applies the plan; alone is a group of one."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ShardingPlan

from feature_store.errors import ConfigError

# what torch and TorchRec say of their own internals on every start
logging.getLogger("torchrec").setLevel(logging.ERROR)
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", category=FutureWarning, module="torchrec")


@dataclass(frozen=True)
class Group:
    """The processes that train together, and this one's place and device among them."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """True on the one process that writes files and prints."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def gather(self, value: Any) -> list[Any]:
        """Any object of every process, in the order of ranks."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def largest(self, value: int, device: torch.device) -> int:
        """The largest value over all processes; `device` is where tensors are exchanged."""
        if self.world == 1:
            return value
        found = torch.tensor(value, device=device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return int(found)

    def concat(self, value: Tensor) -> Tensor:
        """A one-dimensional tensor of every process, one behind the other."""
        if self.world == 1:
            return value
        return torch.cat([part.to(value.device) for part in self.gather(value.cpu())])

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def join(device: str = "auto") -> Iterator[Group]:
    """Enter the group that `torchrun` describes in the environment, or a group of one.

    Raises ConfigError when `device` is "cuda" and there is none.
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
        yield Group(dist.get_rank(), dist.get_world_size(), where)
    finally:
        dist.destroy_process_group()


def current_group() -> Group:
    """The group that this process has joined; alone when it has joined none."""
    if not dist.is_initialized():
        return Group(0, 1, torch.device("cpu"))
    return Group(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))


def shard(model: nn.Module, group: Group) -> DistributedModelParallel:
    """Split the collections of large tables by rows over the group; replicate the rest.

    Call it after optimizers were applied to the large tables (`optimizers.fuse`).
    """
    plan: dict[str, EmbeddingModuleShardingPlan] = {}
    whole: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if path.endswith("_sharded"):
            tables = {name.split(".")[-2]: row_wise() for name, _ in module.named_parameters()}
            whole |= {f"{path}.{name}": p.detach() for name, p in module.named_parameters()}
            plan[path] = construct_module_sharding_plan(
                module, tables, device_type=group.device.type, local_size=group.world
            )
    sharded = DistributedModelParallel(model, device=group.device, plan=ShardingPlan(plan))  # type: ignore[arg-type]
    # TorchRec draws its shards anew, alike on every process: the drawn tables are what is meant
    state = sharded.state_dict()
    for name, table in whole.items():
        for part in state[name].local_shards():
            first, rows = part.metadata.shard_offsets[0], part.metadata.shard_sizes[0]
            part.tensor.copy_(table[first : first + rows])
    return sharded
