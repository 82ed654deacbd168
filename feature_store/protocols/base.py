"""What every protocol shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from feature_store.errors import DataError
from feature_store.options import Options
from feature_store.schema import Schema

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Protocol(Options, ABC):
    """What every protocol shares: which events count, who is measured, what may be recommended.

    All of it is part of the fingerprint.
    """

    needs_clock: ClassVar[tuple[str, ...]] = ("time", "order", "none")
    came_later: ClassVar[tuple[str, ...]] = ()
    """Options that older fingerprints do not know, and that count where they are set."""

    event_types: tuple[str, ...] = Field((), description="Keep only these; empty keeps all.")
    min_label: float | None = Field(None, description="Keep events whose label is at least this.")
    min_user_events: int = Field(1, ge=1, description="Leave out users with fewer events.")
    min_item_events: int = Field(1, ge=1, description="Leave out items with fewer events.")
    seen: Literal["exclude", "include"] = Field(
        "exclude", description="Whether items of the user's history may be recommended."
    )
    candidates: Literal["known", "catalogue", "new", "shown"] = Field(
        "known",
        description="Rank items with an event that was known before, the whole catalogue, or only "
        "what had no event; or, by a ranker, each list as it was shown. Of the last two, the "
        "protocol's name says so.",
    )
    sampled_candidates: int | None = Field(
        None,
        ge=1,
        description="Rank a user's targets among this many random unseen items only. The "
        "protocol's name says so; such figures compare with no others.",
    )
    cold_users: Literal["leave_out", "count"] = Field(
        "leave_out",
        description="Users without a history are left out, for every model alike; or counted, "
        "and a model that needs a history then gets nothing right for them.",
    )

    @model_validator(mode="after")
    def _check_candidates(self) -> Self:
        if self.candidates == "shown" and self.sampled_candidates:
            raise ValueError("lists are ranked as they were shown: leave sampled_candidates out")
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """The options as JSON types, as a fingerprint covers them."""
        fields = type(self).model_fields
        unset = {name for name in self.came_later if getattr(self, name) == fields[name].default}
        return self.model_dump(mode="json", exclude=unset)

    @property
    @abstractmethod
    def base_name(self) -> str:
        """The name without a mark for what is ranked."""

    @property
    def short_name(self) -> str:
        """The name that every figure is printed with."""
        ranked = f"-{self.candidates}" if self.candidates in ("new", "shown") else ""
        sampled = f"-sampled{self.sampled_candidates}" if self.sampled_candidates else ""
        return self.base_name + ranked + sampled

    @property
    def grows(self) -> bool:
        """Whether histories of labelled rows hold earlier events of the rows' own role, too, as
        they do where every event is answered when it comes, as lists are; otherwise they end with
        what was known before the first of the role."""
        return self.candidates == "shown"

    @abstractmethod
    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event."""

    def check(self, schema: Schema) -> None:
        """Raises DataError when the log cannot be split this way."""
        if schema.clock not in self.needs_clock:
            lacks = "neither times nor an order" if schema.clock == "none" else "no times"
            raise DataError(
                f"this log has {lacks} of events, which {self.base_name} needs: "
                "choose protocol = 'random' under [split]"
                + (", or 'fixed'" if schema.published_role else "")
            )
        if self.candidates == "shown" and schema.list is None:
            raise DataError(
                "split.candidates = 'shown' ranks lists as they were shown, and this log does not "
                "tell them: name the column with the list role in the schema (data.columns.list "
                "of a parquet source, lists = true of a synthetic one)"
            )

    def keep(self, events: ir.Table, schema: Schema) -> ir.Table:
        """The events that count. Counts of items and users are taken once, not to a fixpoint."""
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
