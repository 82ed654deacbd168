"""Events of every user are split at random."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from feature_store.protocols.base import Protocol
from feature_store.protocols.dealing import dealt, spread
from feature_store.protocols.roles import TEST, TRAIN, VALIDATION, cases
from feature_store.schema import Schema

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Random(Protocol):
    """Each user's events are split at random: for data without time.

    With `folds`, fold number `fold` is the test; run all of them and average. The validation
    share is taken from what is left.
    """

    protocol: Literal["random"] = "random"
    validation: float = Field(0.1, gt=0, lt=1, description="Share of events.")
    test: float = Field(0.1, gt=0, lt=1, description="Share of events, unless there are folds.")
    folds: int | None = Field(
        None, ge=2, description="Parts of the events, of which one is the test."
    )
    fold: int = Field(0, ge=0, description="Which fold is the test, from 0.")
    seed: int = Field(0, ge=0, description="Which events are drawn.")

    @model_validator(mode="after")
    def _check_shares(self) -> Random:
        if self.folds is None and self.fold:
            raise ValueError("fold chooses one of several folds: set folds, too")
        if self.folds is not None and self.test != 0.1:
            raise ValueError("with folds each is the test: leave test out")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold must be from 0 to {self.folds - 1}, not {self.fold}")
        if self.validation + (1 / self.folds if self.folds else self.test) >= 1:
            raise ValueError("validation and test take all events: nothing is left to train on")
        return self

    @property
    def base_name(self) -> str:
        """`random-5fold-0`, or the shares in percent as `random-80-10-10`."""
        if self.folds:
            return f"random-{self.folds}fold-{self.fold}"
        percent = [round(100 * share) for share in (self.validation, self.test)]
        return f"random-{100 - sum(percent)}-{percent[0]}-{percent[1]}"

    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event."""
        number = dealt(events, schema, self.seed)
        if self.folds:
            card = number % self.folds
            # the cards that are left, numbered anew from 0
            left = (number / self.folds).floor() * (self.folds - 1) + card
            left = left - (card > self.fold).cast("int64")
            validation = spread(left) < self.validation / (1 - 1 / self.folds)
            return cases((card == self.fold, TEST), (validation, VALIDATION), else_=TRAIN)
        drawn = spread(number)
        return cases(
            (drawn < self.test, TEST),
            (drawn < self.test + self.validation, VALIDATION),
            else_=TRAIN,
        )
