"""A plan for many processes as a table."""

from __future__ import annotations

from rich import box
from rich.console import Group as Lines
from rich.table import Table
from rich.text import Text

from recsys.embeddings.planning import Placement
from recsys.runs.plan import Planned

_BAR = 32  # characters
_MOST_BARS = 16


def plan_table(planned: Planned) -> Lines:
    """Tables, then processes, as a person reads them."""
    plan = planned.plan
    tables = Table(title=planned.title, box=box.SIMPLE)
    tables.add_column("table", overflow="fold")
    for name in ("rows x width", "lies", "weights", "state", "most on one"):
        tables.add_column(name, justify="right", no_wrap=True)
    for placement in plan.placements:
        largest = max(placement.shards, key=lambda shard: shard.bytes)
        tables.add_row(
            placement.table.name,
            f"{placement.table.rows:,} x {placement.table.width}",
            _where(placement),
            _size(placement.table.bytes),
            _size(sum(map(placement.state_bytes, placement.shards)) / _copies(placement)),
            _size(largest.bytes + placement.state_bytes(largest)),
        )
    bytes_balance, lookups_balance = plan.balance
    crossing = sum(
        8 * placement.table.width * plan.lookups[placement.table.name]
        for placement in plan.placements
        if placement.kind != "replicated"
    )
    optimizers = sorted({placement.optimizer for placement in plan.placements})
    lines = [
        f"state of {', '.join(optimizers)}; of tables on every process, their gradients too",
        f"largest over mean: memory {bytes_balance:.2f}, lookups {lookups_balance:.2f} (1 is even)",
        f"sharded vectors and gradients: {crossing:,} bytes an example, of which "
        f"{1 - 1 / planned.hosts:.0%} leave the host",
        *(_bars(planned)),
    ]
    return Lines(tables, *(Text(line) for line in lines))


def _where(placement: Placement) -> str:
    if placement.kind == "table_wise":
        return f"on {placement.shards[0].rank}"
    return {"replicated": "everywhere", "row_wise": "by rows", "column_wise": "by columns"}[
        placement.kind
    ]


def _copies(placement: Placement) -> int:
    return len(placement.shards) if placement.kind == "replicated" else 1


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
