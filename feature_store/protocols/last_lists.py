"""The last lists that were shown are the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from feature_store.columns import POSITION
from feature_store.protocols.base import Protocol
from feature_store.protocols.lists import begin
from feature_store.protocols.roles import TEST, TRAIN, VALIDATION, cases
from feature_store.schema import Schema

if TYPE_CHECKING:
    import ibis.expr.types as ir

_NEARLY = 5e-7  # of a list


class LastLists(Protocol):
    """The last lists that were shown are the test, those before them validation: shares of all
    lists, of which none is cut. Other events have the role of the lists at their time."""

    protocol: Literal["last_lists"] = "last_lists"
    needs_clock = ("time",)
    candidates: Literal["shown"] = Field("shown", description="Rank each list as it was shown.")
    validation: float = Field(0.1, gt=0, lt=1, description="Share of lists, before the test.")
    test: float = Field(0.2, gt=0, lt=1, description="Share of lists.")

    @model_validator(mode="after")
    def _check_shares(self) -> LastLists:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test take all lists: nothing is left to train on")
        return self

    @property
    def base_name(self) -> str:
        """`last_lists`."""
        return self.protocol

    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event."""
        import ibis

        time, position = (
            begin(events, schema, key) for key in (events[schema.time], events[POSITION])
        )
        listed = events.filter(events[schema.list].notnull())
        first = listed.group_by(schema.list).aggregate(
            time=listed[schema.time].min(), position=listed[POSITION].min()
        )
        latest = [first.time.desc(), first.position.desc()]
        ranked = first.mutate(rank=ibis.row_number().over(order_by=latest), lists=first.count())
        roles = []
        for role, share in ((TEST, self.test), (VALIDATION, self.validation + self.test)):
            # a share of .1 of 30 lists is a little more than 3 of them, and means 3
            of_role = ranked.filter(ranked["rank"] + _NEARLY < ranked.lists * share)
            since = of_role.time.min().as_scalar()
            place = of_role.filter(of_role.time == since).position.min().as_scalar()
            roles.append(((time > since) | ((time == since) & (position >= place)), role))
        return cases(*roles, else_=TRAIN)
