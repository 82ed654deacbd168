"""shard() gives every process its part of a model's large tables."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import nn
from torchrec.distributed import sharding_plan as torchrec_plan
from torchrec.distributed.model_parallel import (
    DataParallelWrapper,
    DefaultDataParallelWrapper,
    DistributedModelParallel,
)
from torchrec.distributed.types import EmbeddingModuleShardingPlan, ShardingEnv, ShardingPlan

from recsys.distributed import Group
from recsys.embeddings.planning import Placement, Plan, make_plan
from recsys.embeddings.tables import Embeddings, table_of
from recsys.training.optimizers import fuse
from recsys.training.options import OptimizerConfig

# what torch and TorchRec say of their own internals on every start
logging.getLogger("torchrec").setLevel(logging.ERROR)
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
for module in ("torchrec", "torch.distributed.c10d_logger"):
    warnings.filterwarnings("ignore", category=FutureWarning, module=module)


def plan_of(
    model: nn.Module, world: int, optimizer: OptimizerConfig, device: str = "cpu"
) -> dict[str, Plan]:
    """The plan of each `Embeddings` of a model, by its path. Raises ConfigError as `make_plan`.

    What is no table (weights, gradients, optimizer state, buffers) is counted with the first.
    """
    modules = _embeddings_of(model)
    tables = {
        id(weights)
        for module in modules.values()
        for collections in (module.tables, module.sharded)
        for weights in collections.parameters()
    }
    weights = [p for p in model.parameters() if id(p) not in tables]
    dense = 4 * sum(p.nbytes for p in weights) + sum(b.nbytes for b in model.buffers())
    plans = {}
    for path, module in modules.items():
        plans[path] = make_plan(
            module.layout,
            world,
            sharded=lambda table: optimizer.fused(table)[0],
            replicated=optimizer.name,
            device=device,
            dense=dense,
        )
        dense = 0
    return plans


def shard(
    model: nn.Module, group: Group, optimizer: OptimizerConfig | None = None
) -> DistributedModelParallel:
    """Split the large tables over the group as planned, draw their weights, replicate the rest.

    To train, call it after `optimizer` was applied to the large tables (`optimizers.fuse`);
    without one, they can only be read.
    """
    if optimizer is None:
        # TorchRec would take kernels for tables without optimizers that write beyond their memory
        optimizer = OptimizerConfig(sharded="sgd")
        fuse(model, optimizer)
    modules = _embeddings_of(model)
    plan: dict[str, EmbeddingModuleShardingPlan] = {}
    plans = plan_of(model, group.world, optimizer, group.device.type)
    for path, module in modules.items():
        placements = {placement.table.name: placement for placement in plans[path].placements}
        for name, collection in module.sharded.items():
            tables = [table_of(weights) for weights, _ in collection.named_parameters()]
            plan[f"{_prefix(path)}{name}"] = torchrec_plan.construct_module_sharding_plan(
                collection,
                {table: _sharding(placements[table], group.world) for table in tables},
                device_type=group.device.type,
                local_size=group.local_world,
                world_size=group.world,
            )
    sharded = DistributedModelParallel(
        model,
        device=group.device,
        plan=ShardingPlan(plan),  # type: ignore[arg-type]
        data_parallel_wrapper=_replication(group.world),
    )
    for path, module in modules.items():
        for name, weights in sharded.state_dict().items():
            if name.startswith(_prefix(path)):
                _draw(weights, module, table_of(name))
    return sharded


class _Alone(DataParallelWrapper):
    """Of a single process, whose gradients DDP would copy once a step and average with nobody's."""

    def wrap(self, dmp: DistributedModelParallel, env: ShardingEnv, device: torch.device) -> None:
        """Leaves the model as it is, on its device."""
        dmp.module.to(device)


def _replication(world: int) -> DataParallelWrapper:
    """How what is not sharded is kept the same in so many processes."""
    if world == 1:
        return _Alone()
    # DDP must not regroup gradients after its first step: their offsets decide in which order three
    # and more are summed, and a resumed training would sum otherwise than before
    return DefaultDataParallelWrapper(static_graph=world < 3, find_unused_parameters=world > 2)


def _embeddings_of(model: nn.Module) -> dict[str, Embeddings]:
    """By their paths."""
    return {path: m for path, m in model.named_modules() if isinstance(m, Embeddings)}


def _prefix(path: str) -> str:
    """Before the names of the collections of the `Embeddings` at a path."""
    return f"{path}.sharded." if path else "sharded."


@torch.no_grad()
def _draw(weights: Any, module: Embeddings, table: str) -> None:
    for local in weights.local_shards():
        row, column = local.metadata.shard_offsets
        module.fill(local.tensor, table, row, column)


def _sharding(placement: Placement, world: int) -> Any:
    if placement.kind == "table_wise":
        return torchrec_plan.table_wise(rank=placement.shards[0].rank)
    if placement.kind == "column_wise":
        return torchrec_plan.column_wise(ranks=list(range(world)))
    return torchrec_plan.row_wise()
