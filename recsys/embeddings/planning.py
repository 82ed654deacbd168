"""Plan: which part of which table lies on which process of a cluster that need not be there.

Tables up to `embeddings.shard_above_mb` are replicated: every process holds them whole. Of the
others, one that would be more than a quarter of a process's fair share is split by rows over all;
the rest stay whole, each on the process with the least so far. No process then holds much more
than a quarter above the mean. `embeddings.tables.NAME.sharding` decides otherwise for a table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from feature_store.errors import ConfigError
from recsys.embeddings.layout import Layout, Table

Kind = Literal["replicated", "table_wise", "row_wise", "column_wise"]

GB = 1e9
_WHOLE = 0.25  # of a fair share: larger tables are split
RESERVE = 0.15  # of the memory of a process, for batches, activations and buffers
_FLOAT = 4  # bytes
_LANE = 4  # floats: what a GPU's kernels read at a time
_STATE = {  # bytes of optimizer state: for every row of a shard, and for every weight
    "sgd": (0, 0),
    "rowwise_adagrad": (_FLOAT, 0),
    "adagrad": (0, _FLOAT),
    "adam": (0, 2 * _FLOAT),
    "adamw": (0, 2 * _FLOAT),
}


@dataclass(frozen=True)
class Shard:
    """The part of a table that one process holds."""

    rank: int
    rows: int
    columns: int

    @property
    def bytes(self) -> int:
        """Bytes of its weights."""
        return self.rows * self.columns * _FLOAT


@dataclass(frozen=True)
class Placement:
    """Where a table lies, and the bytes beside the weights that each shard needs."""

    table: Table
    kind: Kind
    shards: tuple[Shard, ...]
    optimizer: str

    def state_bytes(self, shard: Shard) -> int:
        """Bytes of optimizer state; of a replicated table also those of its gradient."""
        of_row, of_weight = _STATE[self.optimizer]
        weights = shard.rows * shard.columns
        gradient = _FLOAT * weights if self.kind == "replicated" else 0  # others are fused
        return of_row * shard.rows + of_weight * weights + gradient


@dataclass(frozen=True)
class Load:
    """What one process holds, in bytes, and the row lookups that it answers for every example."""

    weights: int
    state: int
    lookups: float

    @property
    def bytes(self) -> int:
        """All bytes."""
        return self.weights + self.state


@dataclass(frozen=True)
class Plan:
    """Placements on `world` processes. `dense` is the bytes of all else, held by every process."""

    world: int
    placements: tuple[Placement, ...]
    lookups: dict[str, int]  # of every table, for an example
    dense: int = 0

    @cached_property
    def loads(self) -> list[Load]:
        """What every process holds [world]."""
        weights, state, lookups = ([0.0] * self.world for _ in range(3))
        for placement in self.placements:
            rows = sum(s.rows * s.columns for s in placement.shards)
            for shard in placement.shards:
                weights[shard.rank] += shard.bytes
                state[shard.rank] += placement.state_bytes(shard)
                # replicas answer for their own process alone, shards for all
                share = 1.0 if placement.kind == "replicated" else shard.rows * shard.columns / rows
                lookups[shard.rank] += self.lookups[placement.table.name] * share
        return [
            Load(int(w) + self.dense, int(s), n)
            for w, s, n in zip(weights, state, lookups, strict=True)
        ]

    @property
    def fullest(self) -> int:
        """The process that holds most."""
        return max(range(self.world), key=lambda rank: self.loads[rank].bytes)

    def missing(self, memory: float) -> float:
        """Bytes that the fullest process lacks where each has `memory` bytes; 0 where all fit."""
        return max(0.0, self.loads[self.fullest].bytes - memory * (1 - RESERVE))

    @property
    def balance(self) -> tuple[float, float]:
        """(bytes, lookups) of the busiest process over the mean: 1 is even."""
        return (
            _over_mean([load.bytes for load in self.loads]),
            _over_mean([load.lookups for load in self.loads]),
        )


def make_plan(
    layout: Layout,
    world: int,
    *,
    sharded: Callable[[str], str] = lambda table: "rowwise_adagrad",
    replicated: str = "adam",
    device: str = "cpu",
    dense: int = 0,
) -> Plan:
    """Place the tables of a layout on `world` processes; the same plan on every one of them.

    `sharded` names the optimizer of each sharded table, `replicated` that of the others; `dense`
    is the bytes that every process holds besides.

    Raises:
        ConfigError: a table asks for a split that is not possible, or whose optimizer state
            could not be loaded by another number of processes; names the table and the way out.
    """
    large = [table for table in layout.tables if table.sharded]
    sizes = {t.name: t.bytes + _state(sharded(t.name), t) for t in large}
    share = sum(sizes.values()) / world
    placed: dict[str, Placement] = {}
    held = [0] * world
    alone: list[Table] = []
    for table in large:
        if device == "cuda" and table.width % _LANE:
            raise ConfigError(
                f"table {table.name} is {table.width} wide, and tables that are sharded on GPUs "
                f"need a multiple of {_LANE}: change the width or the probes, or set "
                f"embeddings.tables.{table.name}.sharding = 'replicated'"
            )
        kind = table.sharding
        if kind == "auto":
            split = world > 1 and sizes[table.name] > _WHOLE * share and table.rows >= world
            kind = "row_wise" if split else "table_wise"
        if kind == "table_wise":
            alone.append(table)
            continue
        name = sharded(table.name)
        shards = _by_rows(table, world) if kind == "row_wise" else _by_columns(table, world, name)
        placed[table.name] = Placement(table, kind, shards, name)  # type: ignore[arg-type]
        for shard in shards:
            held[shard.rank] += shard.bytes + placed[table.name].state_bytes(shard)
    for table in sorted(alone, key=lambda t: (-sizes[t.name], t.name)):
        rank = min(range(world), key=lambda rank: (held[rank], rank))
        held[rank] += sizes[table.name]
        shard = Shard(rank, table.rows, table.width)
        placed[table.name] = Placement(table, "table_wise", (shard,), sharded(table.name))
    for table in layout.tables:
        if not table.sharded:
            copies = tuple(Shard(rank, table.rows, table.width) for rank in range(world))
            placed[table.name] = Placement(table, "replicated", copies, replicated)
    lookups = {table.name: 0 for table in layout.tables}
    for of_feature in layout.lookups.values():
        for lookup in of_feature:
            lookups[lookup.table] += 1
    return Plan(world, tuple(placed[table.name] for table in layout.tables), lookups, dense)


def _by_rows(table: Table, world: int) -> tuple[Shard, ...]:
    """Equal blocks; the last may be shorter, or empty."""
    block = -(-table.rows // world)
    rows = [max(0, min(block, table.rows - rank * block)) for rank in range(world)]
    return tuple(Shard(rank, count, table.width) for rank, count in enumerate(rows))


def _by_columns(table: Table, world: int, optimizer: str) -> tuple[Shard, ...]:
    option = f"embeddings.tables.{table.name}.sharding"
    if optimizer == "rowwise_adagrad":
        raise ConfigError(
            f"{option} = 'column_wise': Row-wise Adagrad keeps one number for each row of each "
            "shard, which no other number of processes could load; choose 'row_wise', or "
            "trainer.optimizer.sharded = 'adagrad' or 'sgd'"
        )
    if table.width % (world * _LANE) and world > 1:
        raise ConfigError(
            f"{option} = 'column_wise': {table.width} columns cannot be split over {world} "
            f"processes in multiples of {_LANE}; choose 'row_wise'"
        )
    return tuple(Shard(rank, table.rows, table.width // world) for rank in range(world))


def _state(optimizer: str, table: Table) -> int:
    of_row, of_weight = _STATE[optimizer]
    return of_row * table.rows + of_weight * table.rows * table.width


def _over_mean(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return max(values) / mean if mean else 1.0
