"""The one order of events.

It is (time, position): ties in time are broken by the order of the log, always alike. A
log whose publisher gives no order is shuffled instead, always alike too: the order of its lines,
often that of item ids, would tell a sequence model what it cannot know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store.columns import POSITION
from feature_store.engine import Engine
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.schema import Schema

if TYPE_CHECKING:  # Ibis is imported where it is used: every config has a protocol
    import ibis.expr.types as ir


def read_events(engine: Engine, log: EventLog) -> ir.Table:
    """All events of the log as one Ibis table. Raises DataError when the log is empty."""
    if not log.files:
        raise DataError(f"{log.folder} holds no events: ingest some first")
    return engine.scan(log.files)


def order(events: ir.Table, schema: Schema) -> list[ir.Column]:
    """The sort keys of the one order of events."""
    if schema.clock == "none":
        return [shuffle(events[POSITION])]
    return [events[schema.time], events[POSITION]]


def shuffle(column: ir.Column, seed: int = 0) -> ir.StringColumn:
    """A key whose order is random, the same for the same seed on every engine."""
    import ibis

    return (ibis.literal(f"{seed}:") + column.cast("string")).hexdigest("md5")


def seconds(column: ir.Column) -> ir.IntegerColumn:
    """A time column as whole seconds since 1970, rounded down: never later than the event."""
    return column.truncate("s").epoch_seconds().cast("int64")


def rank_from_end(events: ir.Table, schema: Schema) -> ir.IntegerColumn:
    """0 for a user's last event, 1 for the one before it, and so on."""
    import ibis

    latest_first = [key.desc() for key in order(events, schema)]
    return ibis.row_number().over(group_by=events[schema.user], order_by=latest_first)
