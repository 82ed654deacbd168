"""Who may be seen when: every event gets a role (train, validation, test) by a named protocol."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend
from pydantic import BaseModel, ConfigDict, Field

from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.schema import Schema
from feature_store.timeline import rank_from_end, read_events

ROLE = "role"


class _Protocol(BaseModel):
    """What every protocol shares: which events count, and what may be recommended."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event_types: tuple[str, ...] = Field((), description="Keep only these; empty keeps all.")
    min_label: float | None = Field(None, description="Keep events whose label is at least this.")
    min_user_events: int = Field(1, ge=1, description="Leave out users with fewer events.")
    min_item_events: int = Field(1, ge=1, description="Leave out items with fewer events.")
    seen: Literal["exclude", "include"] = Field(
        "exclude", description="Whether items of the user's history may be recommended."
    )
    candidates: Literal["trained", "catalogue"] = Field(
        "trained", description="Rank items with a training event, or every item of the catalogue."
    )

    def keep(self, events: ir.Table, schema: Schema) -> ir.Table:
        """The events that count. Counts of users and items are taken once, not to a fixpoint."""
        if self.event_types:
            if schema.event_type is None:
                raise DataError("split.event_types is set, but the schema has no event_type role")
            events = events.filter(events[schema.event_type].isin(self.event_types))
        if self.min_label is not None:
            if schema.label is None:
                raise DataError("split.min_label is set, but the schema has no label role")
            events = events.filter(events[schema.label] >= self.min_label)
        for column, least in (
            (schema.item, self.min_item_events),
            (schema.user, self.min_user_events),
        ):
            if least > 1:
                events = events.filter(events.count().over(group_by=events[column]) >= least)
        return events


class LeaveOneOut(_Protocol):
    """A user's last event is the test, the one before it validation, the rest train.

    Users with fewer than three events are only trained on.
    """

    protocol: Literal["leave_one_out"] = "leave_one_out"

    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event."""
        rank = rank_from_end(events, schema)
        count = events.count().over(group_by=events[schema.user])
        return ibis.cases(
            (count < 3, "train"), (rank == 0, "test"), (rank == 1, "validation"), else_="train"
        )


class GlobalTime(_Protocol):
    """One moment for all users: what happens after it is the test, a window before it validation.

    Give both moments, or the lengths of the two windows at the end of the log in days.
    """

    protocol: Literal["global_time"] = "global_time"
    validation_start: datetime | None = None
    test_start: datetime | None = None
    validation_days: float = Field(7, gt=0)
    test_days: float = Field(7, gt=0)

    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event."""
        time = events[schema.time]
        if self.test_start and self.validation_start:
            starts = _naive(self.validation_start), _naive(self.test_start)
            if starts[1] <= starts[0]:
                raise DataError("split.test_start must come after split.validation_start")
            validation, test = map(ibis.timestamp, starts)
        elif self.test_start or self.validation_start:
            raise DataError("give both split.validation_start and split.test_start, or neither")
        else:
            end = events[schema.time].max().as_scalar()
            test = end - _microseconds(self.test_days)
            validation = end - _microseconds(self.test_days + self.validation_days)
        return ibis.cases((time >= test, "test"), (time >= validation, "validation"), else_="train")


SplitConfig = Annotated[LeaveOneOut | GlobalTime, Field(discriminator="protocol")]


@dataclass(frozen=True)
class Split:
    """Events with their roles, and the protocol that gave them.

    Two figures are comparable only when their fingerprints are equal: it covers the log, the
    roles, the filters, the treatment of seen items and the candidates.
    """

    protocol: str
    fingerprint: str
    events: ir.Table
    schema: Schema
    counts: dict[str, int]


def make_split(engine: Backend, log: EventLog, config: LeaveOneOut | GlobalTime) -> Split:
    """Give every event of the log its role. Raises DataError when train or test stays empty."""
    kept = config.keep(read_events(engine, log), log.schema)
    events = kept.mutate(**{ROLE: config.role(kept, log.schema)}).cache()
    counted = events.group_by(ROLE).aggregate(n=events.count()).to_pyarrow().to_pylist()
    counts = {row[ROLE]: row["n"] for row in sorted(counted, key=lambda row: row[ROLE])}
    for role in ("train", "validation", "test"):
        if not counts.get(role):
            raise DataError(
                f"the {config.protocol} split leaves no {role} events of {log.num_rows:,}: "
                "check the filters and windows under [split]"
            )
    text = json.dumps([log.fingerprint, config.model_dump(mode="json")], sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Split(config.protocol, fingerprint, events, log.schema, counts)


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _microseconds(days: float) -> ir.IntervalScalar:
    return ibis.interval(microseconds=round(days * 86_400_000_000))
