"""One moment parts the test from what may be known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from feature_store.errors import DataError
from feature_store.protocols.base import Protocol
from feature_store.protocols.lists import begin
from feature_store.protocols.roles import LATER, TEST, TRAIN, VALIDATION, cases
from feature_store.schema import Schema

if TYPE_CHECKING:
    import ibis.expr.types as ir


class GlobalTime(Protocol):
    """One moment for all users: what happens after it is the test, a window before it validation.

    Give both moments, or the lengths of the two windows at the end of the log in days.
    """

    protocol: Literal["global_time"] = "global_time"
    needs_clock = ("time",)
    came_later = ("windows_back",)
    validation_start: datetime | None = Field(
        None, description="First moment of validation (UTC), instead of days."
    )
    test_start: datetime | None = Field(
        None, description="First moment of the test (UTC), instead of days."
    )
    validation_days: float = Field(7, gt=0, description="Days of validation, before the test.")
    test_days: float = Field(7, gt=0, description="Days of the test, at the end of the log.")
    windows_back: int = Field(
        0,
        ge=0,
        description="The test is so many of its lengths earlier, and what comes after it is left "
        "out: an earlier origin, see `recsys rolling`. The protocol's name says so.",
    )

    @model_validator(mode="after")
    def _check_windows(self) -> GlobalTime:
        moments = self.test_start or self.validation_start
        if moments and (self.test_days != 7 or self.validation_days != 7):
            raise ValueError("give moments of test and validation or their days, not both")
        if moments and self.windows_back:
            raise ValueError("windows_back goes with test_days: leave the moments out")
        return self

    @property
    def base_name(self) -> str:
        """`global_time`, or `global_time-back2` where the test is two of its lengths earlier."""
        return self.protocol + (f"-back{self.windows_back}" if self.windows_back else "")

    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event; of what is ranked in lists, that of their first one."""
        time = events[schema.time]
        if self.candidates == "shown":
            time = begin(events, schema, time)
        if self.test_start and self.validation_start:
            starts = _naive(self.validation_start), _naive(self.test_start)
            if starts[1] <= starts[0]:
                raise DataError("split.test_start must come after split.validation_start")
            validation, test = map(_timestamp, starts)
        elif self.test_start or self.validation_start:
            raise DataError("give both split.validation_start and split.test_start, or neither")
        else:
            end = events[schema.time].max().as_scalar()
            later = self.test_days * self.windows_back
            test = end - _microseconds(later + self.test_days)
            validation = end - _microseconds(later + self.test_days + self.validation_days)
            if later:
                known = cases((time >= validation, VALIDATION), else_=TRAIN)
                return cases(
                    (time >= end - _microseconds(later), LATER), (time >= test, TEST), else_=known
                )
        return cases((time >= test, TEST), (time >= validation, VALIDATION), else_=TRAIN)


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _timestamp(moment: datetime) -> ir.TimestampScalar:
    import ibis

    return ibis.timestamp(moment)


def _microseconds(days: float) -> ir.IntervalScalar:
    import ibis

    return ibis.interval(microseconds=round(days * 86_400_000_000))
