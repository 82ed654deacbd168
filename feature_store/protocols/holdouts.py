"""Users, or items, are held out whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from feature_store.protocols.base import Protocol
from feature_store.protocols.dealing import place_of
from feature_store.protocols.roles import (
    TEST,
    TEST_INPUT,
    TRAIN,
    VALIDATION,
    VALIDATION_INPUT,
    cases,
)
from feature_store.schema import Schema
from feature_store.timeline import rank_from_end

if TYPE_CHECKING:
    import ibis.expr.types as ir


class UserHoldout(Protocol):
    """Users are held out whole: eight tenths train, one validation, one test.

    Of a held-out user the first part of the events is the input and the rest the target, as in
    ComiRec (Cen et al., KDD 2020), which ranks what is in the input again, and trains on a user's
    events from the fifth on. With `input = 0` labelled rows are as in DIN's MovieLens (Zhou et al.,
    KDD 2018): each event of a held-out user is asked for, and those before it are history.
    """

    protocol: Literal["user_holdout"] = "user_holdout"
    needs_clock = ("time", "order")
    validation: float = Field(0.1, gt=0, lt=1, description="Share of users.")
    test: float = Field(0.1, gt=0, lt=1, description="Share of users.")
    input: float = Field(
        0.8,
        ge=0,
        lt=1,
        description="Share of a held-out user's events that are shown and not asked for. With 0 "
        "rankers are asked for each, and read those before it.",
    )
    seed: int = Field(0, ge=0, description="Which users are held out.")

    @model_validator(mode="after")
    def _check_shares(self) -> UserHoldout:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test take all users: nothing is left to train on")
        return self

    @property
    def base_name(self) -> str:
        """`user_holdout`, or `user_holdout-each` where every event of theirs is asked for."""
        return self.protocol if self.input else f"{self.protocol}-each"

    @property
    def grows(self) -> bool:
        """Where nothing is input."""
        return not self.input or super().grows

    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event."""
        user = events[schema.user]
        share = place_of(user, self.seed)
        last = rank_from_end(events, schema)
        count = events.count().over(group_by=user)
        shown = last >= count - (count * self.input).floor()
        test, validation = share < self.test, share < self.test + self.validation
        return cases(
            (test & shown, TEST_INPUT),
            (test, TEST),
            (validation & shown, VALIDATION_INPUT),
            (validation, VALIDATION),
            else_=TRAIN,
        )


class ItemHoldout(Protocol):
    """Items are held out whole: eight tenths train, one validation, one test. Nobody is known to
    have had those that are asked for, as when they are new; only such items are ranked."""

    protocol: Literal["item_holdout"] = "item_holdout"
    candidates: Literal["catalogue", "new"] = Field(
        "new", description="Rank only items without events, or the whole catalogue."
    )
    validation: float = Field(0.1, gt=0, lt=1, description="Share of items.")
    test: float = Field(0.1, gt=0, lt=1, description="Share of items.")
    seed: int = Field(0, ge=0, description="Which items are held out.")

    @model_validator(mode="after")
    def _check_shares(self) -> ItemHoldout:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test take all items: nothing is left to train on")
        return self

    @property
    def base_name(self) -> str:
        """`item_holdout`."""
        return self.protocol

    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event."""
        share = place_of(events[schema.item], self.seed)
        return cases(
            (share < self.test, TEST),
            (share < self.test + self.validation, VALIDATION),
            else_=TRAIN,
        )
