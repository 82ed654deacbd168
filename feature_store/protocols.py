"""The named protocols: which role every event of a log plays.

Roles are train, validation and test. Held-out users also have inputs, `validation_input` and
`test_input`: events that are shown when something is asked for them, and not trained on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from feature_store.columns import POSITION
from feature_store.errors import DataError
from feature_store.options import Options
from feature_store.schema import Schema
from feature_store.timeline import rank_from_end, shuffle

if TYPE_CHECKING:  # Ibis is imported where it is used: every config has a protocol
    import ibis.expr.types as ir

TRAIN, VALIDATION, TEST = "train", "validation", "test"
VALIDATION_INPUT, TEST_INPUT = "validation_input", "test_input"
LEARNT = (TRAIN, VALIDATION, VALIDATION_INPUT)  # all that may be trained on before the test
SHOWN = {  # what is known of a user when something of this role is asked for
    VALIDATION: (TRAIN, VALIDATION_INPUT),
    TEST: (*LEARNT, TEST_INPUT),
}


class Protocol(Options, ABC):
    """What every protocol shares: which events count, who is measured, what may be recommended.

    All of it is part of the fingerprint.
    """

    needs_clock: ClassVar[tuple[str, ...]] = ("time", "order", "none")

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
        return _cases((count < 3, TRAIN), (rank == 0, TEST), (rank == 1, VALIDATION), else_=TRAIN)


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
        return _cases((few, TRAIN), (after == 0, TEST), (after == 1, VALIDATION), else_=TRAIN)

    def _beside(self, events: ir.Table, schema: Schema) -> tuple[ir.IntegerColumn, ...]:
        """How many baskets the user of each event had before its own, and after it."""
        import ibis

        user, time = events[schema.user], events[schema.time]
        basket = time.truncate("D") if self.basket == "day" else time
        rank = ibis.dense_rank()
        return tuple(rank.over(group_by=user, order_by=key) for key in (basket, basket.desc()))


class GlobalTime(Protocol):
    """One moment for all users: what happens after it is the test, a window before it validation.

    Give both moments, or the lengths of the two windows at the end of the log in days.
    """

    protocol: Literal["global_time"] = "global_time"
    needs_clock = ("time",)
    validation_start: datetime | None = Field(
        None, description="First moment of validation (UTC), instead of days."
    )
    test_start: datetime | None = Field(
        None, description="First moment of the test (UTC), instead of days."
    )
    validation_days: float = Field(7, gt=0, description="Days of validation, before the test.")
    test_days: float = Field(7, gt=0, description="Days of the test, at the end of the log.")

    @model_validator(mode="after")
    def _check_windows(self) -> GlobalTime:
        moments = self.test_start or self.validation_start
        if moments and (self.test_days != 7 or self.validation_days != 7):
            raise ValueError("give moments of test and validation or their days, not both")
        return self

    @property
    def base_name(self) -> str:
        """`global_time`."""
        return self.protocol

    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event; of what is ranked in lists, that of their first one."""
        time = events[schema.time]
        if self.candidates == "shown":
            time = _begin(events, schema, time)
        if self.test_start and self.validation_start:
            starts = _naive(self.validation_start), _naive(self.test_start)
            if starts[1] <= starts[0]:
                raise DataError("split.test_start must come after split.validation_start")
            validation, test = map(_timestamp, starts)
        elif self.test_start or self.validation_start:
            raise DataError("give both split.validation_start and split.test_start, or neither")
        else:
            end = events[schema.time].max().as_scalar()
            test = end - _microseconds(self.test_days)
            validation = end - _microseconds(self.test_days + self.validation_days)
        return _cases((time >= test, TEST), (time >= validation, VALIDATION), else_=TRAIN)


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
            _begin(events, schema, key) for key in (events[schema.time], events[POSITION])
        )
        listed = events.filter(events[schema.list].notnull())
        first = listed.group_by(schema.list).aggregate(
            time=listed[schema.time].min(), position=listed[POSITION].min()
        )
        latest = [first.time.desc(), first.position.desc()]
        ranked = first.mutate(rank=ibis.row_number().over(order_by=latest), lists=first.count())
        roles = []
        for role, share in ((TEST, self.test), (VALIDATION, self.validation + self.test)):
            of_role = ranked.filter(ranked["rank"] < (ranked.lists * share).round(6))
            since = of_role.time.min().as_scalar()
            place = of_role.filter(of_role.time == since).position.min().as_scalar()
            roles.append(((time > since) | ((time == since) & (position >= place)), role))
        return _cases(*roles, else_=TRAIN)


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
        share = _place(user, self.seed)
        last = rank_from_end(events, schema)
        count = events.count().over(group_by=user)
        shown = last >= count - (count * self.input).floor()
        test, validation = share < self.test, share < self.test + self.validation
        return _cases(
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
        share = _place(events[schema.item], self.seed)
        return _cases(
            (share < self.test, TEST),
            (share < self.test + self.validation, VALIDATION),
            else_=TRAIN,
        )


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
        number = _deal(events, schema, self.seed)
        if self.folds:
            card = number % self.folds
            # the cards that are left, numbered anew from 0
            left = (number / self.folds).floor() * (self.folds - 1) + card
            left = left - (card > self.fold).cast("int64")
            validation = _spread(left) < self.validation / (1 - 1 / self.folds)
            return _cases((card == self.fold, TEST), (validation, VALIDATION), else_=TRAIN)
        drawn = _spread(number)
        return _cases(
            (drawn < self.test, TEST),
            (drawn < self.test + self.validation, VALIDATION),
            else_=TRAIN,
        )


class Fixed(Protocol):
    """The publisher's own split. Without a published validation part, a share of each user's
    training events becomes it."""

    protocol: Literal["fixed"] = "fixed"
    validation: float = Field(
        0.1, gt=0, lt=1, description="Share of training events, if the publisher gives none."
    )
    seed: int = Field(0, ge=0, description="Which training events become validation.")

    @property
    def base_name(self) -> str:
        """`fixed`."""
        return self.protocol

    def check(self, schema: Schema) -> None:
        """Raises DataError when the log carries no published roles, and as any protocol."""
        super().check(schema)
        if schema.published_role is None:
            raise DataError(
                "protocol = 'fixed' needs a published split, as source = 'edge_list' finds in "
                "train.txt and test.txt: this log has none, choose another protocol"
            )

    def role(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role of every event."""
        assert schema.published_role is not None
        published = events[schema.published_role]
        has_validation = (published == VALIDATION).any().over()
        taken = _spread(_deal(events, schema, self.seed)) < self.validation
        return _cases(((published == TRAIN) & taken & ~has_validation, VALIDATION), else_=published)


AnyProtocol = (
    LeaveOneOut | NextBasket | GlobalTime | LastLists | UserHoldout | ItemHoldout | Random | Fixed
)
SplitConfig = Annotated[AnyProtocol, Field(discriminator="protocol")]


def _cases(*branches: tuple[Any, str], else_: Any) -> ir.StringColumn:
    """The role of the first branch whose condition holds."""
    import ibis

    return ibis.cases(*branches, else_=else_)


def _begin(events: ir.Table, schema: Schema, key: Any) -> Any:
    """The least of a key among the events of each one's list, or its own where it has none."""
    shown_in = events[schema.list]
    return shown_in.isnull().ifelse(key, key.min().over(group_by=shown_in))


def _place(ids: ir.Column, seed: int) -> ir.FloatingColumn:
    """Where in [0, 1) each id stands when all distinct ones are put in random order."""
    import ibis

    return ibis.dense_rank().over(order_by=[shuffle(ids, seed), ids]) / ids.nunique().as_scalar()


def _deal(events: ir.Table, schema: Schema, seed: int) -> ir.IntegerColumn:
    """Numbers from 0 as in dealing cards: a user's events, shuffled, get consecutive ones."""
    import ibis

    user = events[schema.user]
    keys = [shuffle(user, seed), user, shuffle(events[POSITION], seed)]
    return ibis.row_number().over(order_by=keys)


def _spread(number: ir.NumericColumn) -> ir.FloatingColumn:
    """Whole numbers to [0, 1): multiples of the golden ratio, modulo 1.

    Of any m consecutive numbers about m * p fall below p, so shares hold for every user.
    """
    turned = number * 0.6180339887498949
    return turned - turned.floor()


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _timestamp(moment: datetime) -> ir.TimestampScalar:
    import ibis

    return ibis.timestamp(moment)


def _microseconds(days: float) -> ir.IntervalScalar:
    import ibis

    return ibis.interval(microseconds=round(days * 86_400_000_000))
