"""Split: a log whose every event has a role, and the fingerprint that its figures carry."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import ibis.expr.types as ir

from feature_store.columns import ROLE
from feature_store.engine import Engine
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.labels import LabelConfig, labelled
from feature_store.protocols import TEST, TRAIN, VALIDATION, AnyProtocol
from feature_store.schema import Schema
from feature_store.timeline import read_events


@dataclass(frozen=True)
class Split:
    """Events with their roles, and the protocol that gave them.

    Two figures are comparable only when their fingerprints are equal: it covers `parts`, the
    log and every setting of the protocol (roles, filters, seen items, candidates, cold users).
    `returns` holds the events of negative quantity: they are nobody's interest, and reduce what
    purchases are worth. Where it `grows`, labelled rows know earlier ones of their own role. The
    log has `log_rows` events, of which `read` are read.
    """

    protocol: str
    fingerprint: str
    parts: dict[str, Any]
    events: ir.Table
    returns: ir.Table | None
    schema: Schema
    counts: dict[str, int]
    grows: bool = False
    log_rows: int = 0
    read: int = 0


def make_split(
    engine: Engine,
    log: EventLog,
    config: AnyProtocol,
    labels: LabelConfig | None = None,
    lists: str | None = None,
    events: ir.Table | None = None,
) -> Split:
    """Give every event of the log its role. With `labels`, those that have one are counted;
    `lists` is the fingerprint of what makes the lists that negatives are drawn from; `events` are
    those of the log that are split, by default all.

    Raises DataError when the log cannot be split this way, or a role stays empty.
    """
    schema = log.schema
    config.check(schema)
    events, returns = read_events(engine, log) if events is None else events, None
    if schema.quantity is not None:
        returned = events[schema.quantity].fill_null(0) < 0
        events, returns = events.filter(~returned), events.filter(returned)
    kept = config.keep(events, schema)
    if labels is not None:
        kept = labelled(engine, kept, schema, labels)
    events = engine.cache(kept.mutate(**{ROLE: config.role(kept, schema)}))
    asked = events
    if labels is not None and schema.label is not None:
        asked = events.filter(events[schema.label].notnull())
    counted = engine.collect(asked.group_by(ROLE).aggregate(n=asked.count())).to_pylist()
    counts = {row[ROLE]: row["n"] for row in sorted(counted, key=lambda row: row[ROLE])}
    for role in (TRAIN, VALIDATION, TEST):
        if not counts.get(role):
            raise DataError(
                f"the {config.base_name} split leaves no {role} events of {log.num_rows:,}: "
                "check the filters and windows under [split]"
            )
    if config.candidates == "shown":
        _check_whole(engine, events, schema, config.base_name)
    settings = {f"split.{name}": value for name, value in config.settings.items()}
    parts = {"data": log.fingerprint, **settings, **(labels.parts(lists) if labels else {})}
    fingerprint = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return Split(
        protocol=config.short_name,
        fingerprint=fingerprint,
        parts=parts,
        events=events,
        returns=returns,
        schema=schema,
        counts=counts,
        grows=config.grows,
        log_rows=log.num_rows,
        read=log.num_rows,
    )


def _check_whole(engine: Engine, events: ir.Table, schema: Schema, protocol: str) -> None:
    """Raises DataError where a list has events of several roles: it cannot be ranked whole."""
    shown_in = events[schema.list]
    roles = events.filter(shown_in.notnull()).group_by(schema.list)
    cut = roles.aggregate(n=events[ROLE].nunique()).filter(lambda lists: lists.n > 1)
    if count := engine.collect(cut.aggregate(n=cut.count()))["n"][0].as_py():
        raise DataError(
            f"the {protocol} split cuts {count:,} lists in two, and split.candidates = 'shown' "
            "ranks them whole: choose protocol = 'last_lists' or 'global_time' under [split]"
        )
