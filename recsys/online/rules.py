"""Rules: which events a store takes, which lists they come in, and how many are kept."""

from __future__ import annotations

from functools import cached_property
from typing import Self

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from feature_store.columns import HISTORY, time_of
from feature_store.errors import DataError
from feature_store.schema import Schema

KEEP = 1000
_MOST_LISTS = 32  # bits of what is kept with an event
_LIMITS = ("keep", "days")


class Rules(BaseModel):
    """What a store does with events: the same as the examples of a run do with its log.

    Attributes:
        log: the schema of the events.
        histories: which event types each list holds, by its name, no type standing for all.
        positives: which of the lists hold only events whose label is 1, of a log with labels.
        positive_from: the least label that is 1; without it labels are 0 or 1.
        leave_out: events with these labels are not taken.
        event_types: only events of these types are taken; empty takes all.
        min_label: only events with at least this label are taken.
        keep: how many events of each list are kept of a user, the newest.
        days: events that are older by now are forgotten; by default none are.

    Events of negative quantity, which are returns, are not taken, as in any split. What counts
    users' and items' events over a whole log (`split.min_user_events`, `split.min_item_events`) is
    no rule for single events: items that a model does not know are passed over when it is asked.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    log: Schema
    histories: dict[str, tuple[str, ...]] = {HISTORY: ()}
    positives: tuple[str, ...] = ()
    positive_from: float | None = None
    leave_out: tuple[float, ...] = ()
    event_types: tuple[str, ...] = ()
    min_label: float | None = None
    keep: int = Field(KEEP, ge=1)
    days: float | None = Field(None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.log.clock == "none":
            raise ValueError("this log has no times: nobody can tell which events are the newest")
        if self.days is not None and self.log.clock != "time":
            raise ValueError("this log tells only the order of events: none of them is too old")
        if self.log.event_type is None and (self.event_types or any(self.histories.values())):
            raise ValueError("lists hold events of certain types, and this log names no types")
        if self.log.label is None and (self.min_label is not None or self.leave_out):
            raise ValueError("events are chosen by their labels, and this log has none")
        if not 1 <= len(self.histories) <= _MOST_LISTS:
            raise ValueError(f"a store has from 1 to {_MOST_LISTS} lists")
        return self

    @cached_property
    def asked(self) -> tuple[str, ...]:
        """The columns that every event has to have, and those that tell events apart."""
        log = self.log
        typed = self.event_types or any(self.histories.values())
        labelled = self.positives or self.leave_out or self.min_label is not None
        columns = (
            *(log.user, log.item, log.time),
            *((log.event_type,) if typed else ()),
            *((log.label,) if labelled else ()),
            *log.unique,
        )
        return tuple(dict.fromkeys(name for name in columns if name is not None))

    @cached_property
    def read(self) -> pa.Schema:
        """The columns of events that anything is made of."""
        events = self.log.events_schema()
        names = {*self.asked, *self.identity, self.log.quantity}
        return pa.schema(field for field in events if field.name in names)

    @cached_property
    def identity(self) -> tuple[str, ...]:
        """The columns that tell events apart: where the log has no `unique` ones, together with
        how many equal events came before."""
        log = self.log
        columns = (log.user, log.item, log.time, log.event_type)
        return log.unique or tuple(name for name in columns if name is not None)

    @cached_property
    def features(self) -> pa.Schema:
        """What is known of a user besides events: all but the id."""
        side = self.log.side_schema("user")
        return side.remove(side.get_field_index(self.log.user))

    @cached_property
    def row(self) -> pa.Schema:
        """The columns of a user's row, as in a bundle's file."""
        item = self.log[self.log.item].arrow_type
        lists = [
            field
            for name in self.histories
            for field in (
                pa.field(name, pa.list_(item)),
                pa.field(time_of(name), pa.list_(pa.int64())),
            )
        ]
        user = pa.field(self.log.user, self.log[self.log.user].arrow_type)
        return pa.schema([user, *lists, *self.features])

    def differs(self, other: Rules) -> list[str]:
        """What is not the same in others, but for how much is kept."""
        names = [name for name in type(self).model_fields if name not in _LIMITS]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


def make_rules(**values: object) -> Rules:
    """Rules of values. Raises DataError for those that make none."""
    try:
        return Rules.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise DataError(f"no store of users: {where + ': ' if where else ''}{reason}") from None
