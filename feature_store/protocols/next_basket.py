"""The last basket of every user is the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from feature_store.protocols.base import Protocol
from feature_store.protocols.roles import TEST, TRAIN, VALIDATION, cases
from feature_store.schema import Schema

if TYPE_CHECKING:
    import ibis.expr.types as ir


class NextBasket(Protocol):
    """A user's last basket is the test, the one before it validation, the rest train: what is
    bought next by people who buy again.

    Users with fewer than three baskets are only trained on.
    """

    protocol: Literal["next_basket"] = "next_basket"
    needs_clock = ("time",)
    seen: Literal["exclude", "include"] = Field(
        "include", description="Whether items of the user's history may be recommended."
    )
    basket: Literal["moment", "day"] = Field(
        "moment",
        description="A basket is what a user took at the same moment, which is the day in logs "
        "that know days only; or on the same day (UTC).",
    )
    min_baskets: int = Field(1, ge=1, description="Leave out users with fewer baskets.")

    @property
    def base_name(self) -> str:
        """`next_basket`."""
        return self.protocol

    def keep(self, events: ir.Table, schema: Schema) -> ir.Table:
        """The events that count; baskets are counted last."""
        events = super().keep(events, schema)
        if self.min_baskets > 1:
            before, after = self._beside(events, schema)
            events = events.filter(before + after + 1 >= self.min_baskets)
        return events

    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event."""
        before, after = self._beside(events, schema)
        few = before + after + 1 < 3
        return cases((few, TRAIN), (after == 0, TEST), (after == 1, VALIDATION), else_=TRAIN)

    def _beside(self, events: ir.Table, schema: Schema) -> tuple[ir.IntegerColumn, ...]:
        """How many baskets the user of each event had before its own, and after it."""
        import ibis

        user, time = events[schema.user], events[schema.time]
        basket = time.truncate("D") if self.basket == "day" else time
        rank = ibis.dense_rank()
        return tuple(rank.over(group_by=user, order_by=key) for key in (basket, basket.desc()))
