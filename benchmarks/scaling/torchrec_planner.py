"""What TorchRec's own planner would do with the same tables on the same machines."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from torch import nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import PlannerError, ShardingOption, Stats
from torchrec.distributed.types import ModuleSharder

from benchmarks.scaling.machine import Machine
from recsys.embeddings.layout import Layout
from recsys.embeddings.planning import RESERVE
from recsys.embeddings.tables import Embeddings
from recsys.training.optimizers import fuse
from recsys.training.options import OptimizerConfig

KINDS = {"data_parallel": "replicated"}  # our names of theirs, where they differ
_PER_MS = 1e-3  # its bandwidths are of milliseconds


@dataclass(frozen=True)
class Advice:
    """Where its plan puts each table; bytes on its fullest process; and the seconds that it expects
    of the tables on the busiest one."""

    kinds: dict[str, str]
    held: float
    seconds: float


class _Kept(Stats):
    """The plan, as the planner tells it to whoever counts."""

    options: list[ShardingOption]

    def log(self, *_: Any, **told: Any) -> None:
        """Keep it."""
        self.options = told["best_plan"]


def advise(
    layout: Layout, ids: dict[str, float], world: int, batch: int, machine: Machine
) -> Advice | None:
    """Its plan for tables under Row-wise Adagrad that stay in the memory of GPUs, as ours do; `ids`
    are those of each feature in an example. None where it knows none that fits."""
    logging.getLogger("torchrec").setLevel(logging.CRITICAL)
    module = Embeddings(layout)
    fuse(module, OptimizerConfig(), "cuda")  # so that it counts their state
    constraints = {
        table.name: ParameterConstraints(
            compute_kernels=["fused", "dense"],
            pooling_factors=[
                ids[lookup.feature]
                for lookups in layout.lookups.values()
                for lookup in lookups
                if lookup.table == table.name
            ],
        )
        for table in layout.tables
    }
    kept = _Kept()
    planner = EmbeddingShardingPlanner(
        topology=Topology(
            world_size=world,
            local_world_size=min(machine.local, world),
            compute_device="cuda",
            hbm_cap=int(machine.memory),
            hbm_mem_bw=machine.bandwidth * _PER_MS,
            intra_host_bw=machine.within * _PER_MS,
            inter_host_bw=machine.across * _PER_MS,
        ),
        batch_size=batch,
        constraints=constraints,
        storage_reservation=FixedPercentageStorageReservation(RESERVE),
        stats=kept,
    )
    sharders: list[ModuleSharder[nn.Module]] = [
        EmbeddingCollectionSharder(),  # type: ignore[list-item]
        EmbeddingBagCollectionSharder(),  # type: ignore[list-item]
    ]
    try:
        planner.plan(module, sharders)
    except PlannerError:
        return None
    held, taken = [0.0] * world, [0.0] * world
    for option in kept.options:
        for shard in option.shards:
            assert shard.rank is not None and shard.storage is not None and shard.perf is not None
            held[shard.rank] += shard.storage.hbm
            taken[shard.rank] += shard.perf.total
    kinds = {one.name: KINDS.get(one.sharding_type, one.sharding_type) for one in kept.options}
    return Advice(kinds, max(held), max(taken) * _PER_MS)
