"""Events of a user in time order, and histories that hold only strictly earlier events.

The order is (time, position): ties in time are broken by the order of the log, always alike. A
log whose publisher gives no order is shuffled instead, always alike too: the order of its lines,
often that of item ids, would tell a sequence model what it cannot know.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from feature_store.columns import POSITION
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.schema import Schema


def read_events(engine: Backend, log: EventLog) -> ir.Table:
    """All events of the log as one Ibis table. Raises DataError when the log is empty."""
    files = [str(path) for path in log.files]
    if not files:
        raise DataError(f"{log.folder} holds no events: ingest some first")
    # a folder named `user=1` must not become a column, let alone replace one
    return engine.read_parquet(files, hive_partitioning=False)


def order(events: ir.Table, schema: Schema) -> list[ir.Column]:
    """The sort keys of the one order of events."""
    if schema.clock == "none":
        return [shuffle(events[POSITION])]
    return [events[schema.time], events[POSITION]]


def shuffle(column: ir.Column, seed: int = 0) -> ir.StringColumn:
    """A key whose order is random, the same for the same seed on every engine."""
    return (ibis.literal(f"{seed}:") + column.cast("string")).hexdigest("md5")


def seconds(column: ir.Column) -> ir.IntegerColumn:
    """A time column as whole seconds since 1970, rounded down: never later than the event."""
    return column.truncate("s").epoch_seconds().cast("int64")


def rank_from_end(events: ir.Table, schema: Schema) -> ir.IntegerColumn:
    """0 for a user's last event, 1 for the one before it, and so on."""
    latest_first = [key.desc() for key in order(events, schema)]
    return ibis.row_number().over(group_by=events[schema.user], order_by=latest_first)


def sequences(events: ir.Table, schema: Schema, columns: dict[str, ir.Column]) -> ir.Table:
    """One row a user: each of `columns` (of `events`) collected to a list in time order."""
    keys = order(events, schema)
    lists = {name: column.collect(order_by=keys) for name, column in columns.items()}
    return events.group_by(schema.user).aggregate(**lists)


def histories(
    events: ir.Table, schema: Schema, columns: dict[str, ir.Column], length: int
) -> ir.Table:
    """Every event with lists of the `length` events of its user that come strictly before it."""
    window = ibis.window(
        group_by=events[schema.user],
        order_by=order(events, schema),
        preceding=(length, 1),
    )
    lists = {
        name: ibis.coalesce(
            column.collect().over(window), ibis.literal([], type=f"array<{column.type()}>")
        )
        for name, column in columns.items()
    }
    return events.mutate(**lists)
