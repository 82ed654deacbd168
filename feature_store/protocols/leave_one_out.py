"""The last event of every user is the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from feature_store.protocols.base import Protocol
from feature_store.protocols.roles import TEST, TRAIN, VALIDATION, cases
from feature_store.schema import Schema
from feature_store.timeline import rank_from_end

if TYPE_CHECKING:
    import ibis.expr.types as ir


class LeaveOneOut(Protocol):
    """A user's last event is the test, the one before it validation, the rest train.

    Users with fewer than three events are only trained on.
    """

    protocol: Literal["leave_one_out"] = "leave_one_out"
    needs_clock = ("time", "order")

    @property
    def base_name(self) -> str:
        """`leave_one_out`."""
        return self.protocol

    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event."""
        rank = rank_from_end(events, schema)
        count = events.count().over(group_by=events[schema.user])
        return cases((count < 3, TRAIN), (rank == 0, TEST), (rank == 1, VALIDATION), else_=TRAIN)
