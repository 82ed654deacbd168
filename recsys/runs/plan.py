"""Config -> which table would lie where on a cluster that need not be there; does it fit?"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from feature_store.errors import ConfigError
from recsys.config import RunConfig
from recsys.embeddings.planning import GB, RESERVE, Plan
from recsys.runs.build import build_model
from recsys.runs.prepare import prepare
from recsys.training.sharding import plan_of

_MOST_PROCESSES = 4096


@dataclass(frozen=True)
class Planned:
    """A plan for `hosts` hosts whose processes have `memory` bytes each."""

    plan: Plan
    memory: float
    hosts: int
    smallest: int | None  # processes, a power of two of them, on which it would fit

    @property
    def problem(self) -> str | None:
        """What is missing, and the way out; None where everything fits."""
        missing = self.plan.missing(self.memory)
        if not missing:
            return None
        rank = self.plan.fullest
        out = (
            f"it fits on --world-size {self.smallest}"
            if self.smallest
            else "what every process holds whole is too much: shard more of it with "
            "embeddings.shard_above_mb, or give it less with embeddings.budget_mb"
        )
        return (
            f"process {rank} would hold {self.plan.loads[rank].bytes / GB:.2f} GB and has "
            f"{self.memory / GB:.2f}, of which {RESERVE:.0%} are kept for batches: "
            f"{missing / GB:.2f} GB are missing; {out}"
        )

    @property
    def title(self) -> str:
        """How many processes, where, with what memory."""
        world = self.plan.world
        return (
            f"{world} {'process' if world == 1 else 'processes'} on {self.hosts} "
            f"{'host' if self.hosts == 1 else 'hosts'}, {self.memory / GB:.1f} GB each"
        )


def plan(
    config: RunConfig, world: int = 1, memory_gb: float | None = None, hosts: int | None = None
) -> Planned:
    """Place the model's tables on `world` processes of `memory_gb` (10^9 bytes) each.

    Tables have the sizes of the log's vocabularies, or of `embeddings.tables.NAME.rows`. By default
    memory is that of this machine.

    Raises ConfigError for a closed-form model, which has no tables, for numbers that do not
    divide, and for a table that cannot be split as it asks.
    """
    hosts = hosts or max(1, -(-world // 8))
    if world % hosts:
        raise ConfigError(f"{world} processes cannot be spread evenly over {hosts} hosts")
    model = build_model(config, prepare(config))
    # memory that is given is a GPU's, unless the config trains on CPUs
    device = "cuda" if memory_gb and config.trainer.device != "cpu" else "cpu"

    def make(processes: int) -> Plan:
        plans = list(plan_of(model, processes, config.trainer.optimizer, device).values())
        if not plans:
            raise ConfigError(f"{config.model.name} has no embedding tables to plan")
        return plans[0]

    memory = memory_gb * GB if memory_gb else _own_memory(world // hosts)
    wanted, smallest = make(world), None
    if wanted.missing(memory):
        sizes = (1 << n for n in range(13) if world < 1 << n <= _MOST_PROCESSES)
        smallest = next((n for n in sizes if not make(n).missing(memory)), None)
    return Planned(wanted, memory, hosts, smallest)


def _own_memory(processes: int) -> float:
    """Bytes for each of the processes of a host like this one."""
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / processes
