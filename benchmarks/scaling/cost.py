"""What a training step costs on so many processes, from a plan, rates and the speed of links.

Arithmetic alone. Nothing overlaps, which makes steps longer than they are; ids spread evenly over
the rows of a table, and activations of what is dense are left out, which makes them shorter and
memory less.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from recsys.embeddings.planning import Placement, Plan

FLOAT, ID = 4, 8  # bytes
_ADAM = 7  # floats read and written for a weight: itself, its gradient and two moments


@dataclass(frozen=True)
class Rates:
    """What one process does: bytes a second that it moves for rows of tables, operations a second
    of what is dense, and the seconds of a step that no size changes."""

    lookup: float
    dense: float
    overhead: float


@dataclass(frozen=True)
class Links:
    """Bytes a second that a process sends within its host of `local` processes, and beyond it; and
    seconds that an exchange takes at the least."""

    within: float
    across: float
    latency: float = 0.0
    local: int = 8

    def all_to_all(self, size: float, world: int) -> float:
        """Seconds until each of `world` processes has handed out `size` bytes, the same share to
        everyone, itself included. Both kinds of links work at once."""
        if world == 1 or not size:
            return 0.0
        local = min(self.local, world)
        inside, outside = size * (local - 1) / world, size * (world - local) / world
        return self.latency + max(inside / self.within, outside / self.across)

    def ring(self, size: float, world: int) -> float:
        """Seconds to reduce and scatter, or to gather, `size` bytes over `world` processes: each
        sends all but one part of them, and the processes of a host share what leaves it."""
        if world == 1 or not size:
            return 0.0
        sent = size * (world - 1) / world
        outside = sent / self.local / self.across if world > self.local else 0.0
        return self.latency + max(sent / self.within, outside)

    def all_reduce(self, size: float, world: int) -> float:
        """Seconds to sum `size` bytes: reduced and scattered, then gathered."""
        return 2 * self.ring(size, world)


@dataclass(frozen=True)
class Work:
    """What a step asks of each process: `batch` examples with so many `ids` of every table each,
    of which so many `vectors` are made, fewer where those of a list are summed; and `operations` an
    example by `dense` bytes of weights that every process holds."""

    batch: int
    ids: dict[str, float]
    vectors: dict[str, float]
    operations: float
    dense: int


@dataclass(frozen=True)
class Step:
    """Seconds of a step, part by part."""

    overhead: float
    dense: float
    tables: float  # rows read and updated
    ids: float  # sent to where their rows are
    vectors: float  # sent back
    gradients: float
    summed: float  # gradients of what every process holds

    @property
    def seconds(self) -> float:
        """All parts, one after the other."""
        return sum(astuple(self))


def moved(width: int, lookups: float, outputs: float) -> float:
    """Bytes that reading and updating `lookups` rows moves: rows read; vectors written and their
    gradients read; rows and a number of state for each read and written."""
    return FLOAT * (lookups * width + 2 * outputs * width + lookups * (2 * width + 2))


def answered(placement: Placement, work: Work, world: int) -> list[float]:
    """Lookups that each process answers in a step [world], of all columns of a row."""
    table = placement.table
    asked = work.batch * work.ids[table.name]
    if placement.kind == "replicated":
        return [asked] * world
    found = [0.0] * world
    for shard in placement.shards:
        found[shard.rank] += world * asked * shard.rows * shard.columns / table.rows / table.width
    return found


def step_of(plan: Plan, work: Work, rates: Rates, links: Links) -> Step:
    """The step of the busiest process. Of bags in a table that is split by rows every process makes
    a part, and all parts are summed; other vectors come whole."""
    world, batch = plan.world, work.batch
    moves, sent = [0.0] * world, [0.0] * world
    asked = received = partial = 0.0
    held = float(work.dense)
    for placement in plan.placements:
        table = placement.table
        lookups = batch * work.ids[table.name]
        vectors = batch * work.vectors[table.name]
        vector, whole = FLOAT * table.width, placement.kind == "replicated"
        by_rows = placement.kind == "row_wise" and table.pooled
        for rank, count in enumerate(answered(placement, work, world)):
            share = count / lookups if lookups else 0.0  # of what one process asks
            given = world * vectors if by_rows and count else vectors * share
            moves[rank] += moved(table.width, count, given)
            sent[rank] += 0.0 if whole or by_rows else given * vector
        if whole:
            held += table.bytes
            moves = [of + _ADAM * table.bytes for of in moves]
            continue
        asked += ID * lookups
        if by_rows:
            partial += world * vectors * vector
        else:
            received += vectors * vector
    exchange = links.all_to_all(max(received, *sent), world) + links.ring(partial, world)
    return Step(
        overhead=rates.overhead,
        dense=batch * work.operations / rates.dense,
        tables=max(moves) / rates.lookup,
        ids=links.all_to_all(asked, world),
        vectors=exchange,
        gradients=exchange,
        summed=links.all_reduce(held, world),
    )


def buffers(plan: Plan, work: Work) -> float:
    """Bytes of ids, vectors and gradients of a step on the busiest process, beside the tables."""
    held = [0.0] * plan.world
    for placement in plan.placements:
        table = placement.table
        asked = work.batch * work.ids[table.name]
        vectors = work.batch * work.vectors[table.name]
        for rank, count in enumerate(answered(placement, work, plan.world)):
            share = count / asked if asked else 0.0
            given = vectors * share
            if placement.kind == "row_wise" and table.pooled and count:
                given = plan.world * vectors
            held[rank] += ID * (asked + count) + 2 * FLOAT * table.width * (vectors + given)
    return max(held)
