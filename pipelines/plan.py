"""Config -> which table would lie where on a cluster that need not be there; does it fit?"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich import box
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from feature_store.errors import ConfigError
from pipelines.ingest import ingest_source
from pipelines.prepare import prepare
from pipelines.train import build_model
from recsys.config import RunConfig
from recsys.embeddings.planning import GB, RESERVE, Placement, Plan
from recsys.training.sharding import plan_of

_BAR = 32  # characters
_MOST_BARS = 16
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


def plan(
    config: RunConfig, world: int = 1, memory_gb: float | None = None, hosts: int | None = None
) -> Planned:
    """Place the model's tables on `world` processes of `memory_gb` (10^9 bytes) each.

    The log is ingested where it is not: tables have the sizes of its vocabularies, or of
    `embeddings.tables.NAME.rows`. By default memory is that of this machine.

    Raises ConfigError for a closed-form model, which has no tables, for numbers that do not
    divide, and for a table that cannot be split as it asks.
    """
    hosts = hosts or max(1, -(-world // 8))
    if world % hosts:
        raise ConfigError(f"{world} processes cannot be spread evenly over {hosts} hosts")
    ingest_source(
        config.data, config.store_folder, quarantine=config.quarantine, engine=config.engine
    )
    model = build_model(config, prepare(config))
    # memory that is given is a GPU's, unless the config trains on CPUs
    device = "cuda" if memory_gb and config.trainer.device != "cpu" else "cpu"

    def make(processes: int) -> Plan:
        plans = list(plan_of(model, processes, config.trainer.optimizer, device).values())
        if not plans:
            raise ConfigError(f"{config.model.name} has no embedding tables to plan")
        return plans[0]

    memory = memory_gb * GB if memory_gb else _own_memory(world // hosts)
    found, smallest = make(world), None
    if found.missing(memory):
        sizes = (1 << n for n in range(13) if world < 1 << n <= _MOST_PROCESSES)
        smallest = next((n for n in sizes if not make(n).missing(memory)), None)
    return Planned(found, memory, hosts, smallest)


def _own_memory(processes: int) -> float:
    """Bytes for each of the processes of a host like this one."""
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / processes


def describe(planned: Planned) -> Lines:
    """Tables, then processes, as a person reads them."""
    found = planned.plan
    tables = Table(title=_title(planned), box=box.SIMPLE)
    tables.add_column("table", no_wrap=True)
    for name in ("rows x width", "lies", "weights", "state", "most on one"):
        tables.add_column(name, justify="right", no_wrap=True)
    for one in found.placements:
        part = max(one.shards, key=lambda shard: shard.bytes)
        tables.add_row(
            one.table.name,
            f"{one.table.rows:,} x {one.table.width}",
            _where(one),
            _size(one.table.bytes),
            _size(sum(map(one.state_bytes, one.shards)) / _copies(one)),
            _size(part.bytes + one.state_bytes(part)),
        )
    bytes_balance, lookups_balance = found.balance
    crossing = sum(
        8 * one.table.width * found.lookups[one.table.name]
        for one in found.placements
        if one.kind != "replicated"
    )
    optimizers = sorted({one.optimizer for one in found.placements})
    lines = [
        f"state of {', '.join(optimizers)}; of tables on every process, their gradients too",
        f"largest over mean: memory {bytes_balance:.2f}, lookups {lookups_balance:.2f} (1 is even)",
        f"sharded vectors and gradients: {crossing:,} bytes an example, of which "
        f"{1 - 1 / planned.hosts:.0%} leave the host",
        *(_bars(planned)),
    ]
    return Lines(tables, *(Text(line) for line in lines))


def _title(planned: Planned) -> str:
    world = planned.plan.world
    return (
        f"{world} {'process' if world == 1 else 'processes'} on {planned.hosts} "
        f"{'host' if planned.hosts == 1 else 'hosts'}, {planned.memory / GB:.1f} GB each"
    )


def _where(one: Placement) -> str:
    if one.kind == "table_wise":
        return f"on {one.shards[0].rank}"
    return {"replicated": "everywhere", "row_wise": "by rows", "column_wise": "by columns"}[
        one.kind
    ]


def _copies(one: Placement) -> int:
    return len(one.shards) if one.kind == "replicated" else 1


def _size(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"


def _bars(planned: Planned) -> list[str]:
    """Memory of every process, or of the emptiest and the fullest where there are many."""
    loads = planned.plan.loads
    ranks = list(range(len(loads)))
    if len(ranks) > _MOST_BARS:
        ordered = sorted(ranks, key=lambda rank: loads[rank].bytes)
        ranks = [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
    lines = []
    for rank in ranks:
        share = loads[rank].bytes / planned.memory
        filled = "█" * min(_BAR, round(_BAR * share))
        lines.append(
            f"process {rank:>4}  {filled:<{_BAR}}  {_size(loads[rank].bytes):>8} ({share:.0%})"
        )
    if len(loads) > len(ranks):
        lines.append("(the emptiest, the middle and the fullest process)")
    return lines


def draw(planned: Planned, path: Path) -> Path:
    """Bars of every process, stacked by table, and the line that they must stay below."""
    found, limit = planned.plan, planned.memory * (1 - RESERVE) / GB
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    ranks, bottom = list(range(found.world)), [found.dense / GB] * found.world
    axes.bar(ranks, bottom, color="#8a8f98", label="what is dense", width=0.9)
    for place, one in enumerate(sorted(found.placements, key=lambda p: -p.table.bytes)):
        height = [0.0] * found.world
        for shard in one.shards:
            height[shard.rank] += (shard.bytes + one.state_bytes(shard)) / GB
        label = one.table.name if place < 9 else None
        axes.bar(ranks, height, bottom=bottom, color=f"C{place % 10}", label=label, width=0.9)
        bottom = [a + b for a, b in zip(bottom, height, strict=True)]
    axes.axhline(limit, color="black", linewidth=1, linestyle="--")
    note = f"{limit:.3g} GB: memory less {RESERVE:.0%}"
    axes.annotate(note, (0, limit), (4, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="process", ylabel="GB of weights and optimizer state", title=_title(planned))
    axes.set_ylim(0, 1.15 * max(limit, *bottom))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(path, dpi=150)
    return path
