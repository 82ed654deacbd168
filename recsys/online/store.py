"""What every store of users does, whatever keeps its bytes."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from feature_store.columns import time_of
from feature_store.errors import DataError
from feature_store.ids import as_ids
from recsys.online.events import Events, arriving
from recsys.online.merge import merge
from recsys.online.record import NEVER, pack, unpack
from recsys.online.rules import Rules

Id = int | str
Changed = Mapping[int, tuple[bytes, int]]
"""By place among the users that were asked for: the new record, and its newest moment."""
Change = Callable[[Sequence[bytes | None]], tuple[Changed, int]]
"""From the records of some users to what is changed, and how many events are new."""

_RULES = "rules"
_MICROS = 1_000_000
DAY = 86_400 * _MICROS  # in microseconds


class Mark(NamedTuple):
    """What is remembered together with events, such as how far a log was read."""

    name: str
    value: str


class UserStore(ABC):
    """The newest histories and the features of users, to which events are added while they are
    read: see `recsys.serving.users.KnownUsers` for the contract.

    Every change of a user's record is atomic, between threads and processes, too. `clock` tells
    the seconds since 1970.

    Attributes:
        rules: what is kept, as it was when the store was opened.
        shown: where it is, without anything secret.
        at_once: users whose records are in memory, and are changed, together.
    """

    rules: Rules
    shown: str
    at_once: int = 1024

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

    # -- what a kind of store does --------------------------------------------------------------

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open."""

    @abstractmethod
    def users(self) -> pa.Array:
        """The ids of all known users, sorted."""

    @abstractmethod
    def remembered(self, name: str) -> str | None:
        """What was remembered by that name."""

    @abstractmethod
    def remember(self, mark: Mark, *, once: bool = False) -> None:
        """Remember it; `once` leaves what is remembered already as it is."""

    @abstractmethod
    def _change(self, ids: Sequence[Id], change: Change) -> int:
        """Change records, atomically; returns how many events are new."""

    @abstractmethod
    def _read(self, ids: Sequence[Id]) -> tuple[list[bytes | None], list[str | None]]:
        """Records, and features as JSON, of users; None where there are none."""

    @abstractmethod
    def _write_features(self, ids: Sequence[Id], rows: Sequence[str]) -> None:
        """Replace the features of users."""

    @abstractmethod
    def _forget(self, ids: Sequence[Id]) -> int:
        """Remove records and features; returns how many records there were."""

    @abstractmethod
    def _forget_before(self, micros: int) -> None:
        """Remove the records whose newest moment is before that one."""

    @contextmanager
    def _together(self) -> Iterator[None]:
        """All changes in the block appear together, where the kind can do that."""
        yield

    # -- the contract ---------------------------------------------------------------------------

    @property
    def schema(self) -> pa.Schema:
        """The columns of a user's row, as in a bundle's file."""
        return self.rules.row

    @property
    def column_names(self) -> list[str]:
        """What is known of a user."""
        return list(self.rules.row.names)

    def append(self, events: pa.Table, *, mark: Mark | None = None) -> int:
        """Add events at their times, each at most once; returns how many are new and held.

        Those that the rules do not take, that are known, that are too old, or that so many newer
        ones follow that they would be forgotten, are not counted. `mark` is remembered with them.

        Raises DataError, and adds nothing, where a column is missing or a value does not fit.
        """
        users, arrived = arriving(self.rules, events)
        order = np.argsort(arrived.owner, kind="stable")
        arrived, ids = arrived.take(order), users.to_pylist()
        since, added = self._since(), 0
        with self._together():
            for first in range(0, len(ids), self.at_once):
                part = ids[first : first + self.at_once]
                bounds = np.searchsorted(arrived.owner, [first, first + len(part)])
                which = arrived.take(np.arange(*bounds))
                own = Events(which.owner - first, which.rows, which.items)
                added += self._change(part, self._adding(own, since))
            if mark is not None:
                self.remember(mark)
        return added

    def of(
        self,
        users: pa.Array,
        columns: Sequence[str] | None = None,
        *,
        before: int | None = None,
    ) -> pa.Table:
        """A row for each of `users`, of all columns or of some; of unknown users all null. Lists
        then hold only events of a second `before` that one."""
        wanted = self._ids(users)
        names = self.column_names if columns is None else list(columns)
        distinct = pc.unique(wanted.drop_null())
        records, features = self._read(distinct.to_pylist())
        with self._reading():
            events, newest = unpack(records, self._item_kind)
        made = {self.rules.log.user: distinct, **self._lists(events, len(distinct), before)}
        made.update(self._features(features, names))
        known = (newest > NEVER) & (newest >= self._since())
        place = pc.index_in(wanted, value_set=distinct).fill_null(-1).to_numpy()
        place = np.where(place < 0, len(known), place)
        missing = ~np.append(known, False)[place]
        rows = pa.table([made[name] for name in names], pa.schema(map(self.schema.field, names)))
        return rows.take(pa.array(place, mask=missing))

    # -- what else it holds ----------------------------------------------------------------------

    def put_features(self, table: pa.Table) -> None:
        """Replace what is known of users besides their events: rows as the catalogue has them."""
        ids = table.column(self.rules.log.user).to_pylist()
        names = [name for name in self.rules.features.names if name in table.column_names]
        rows = table.select(names).to_pylist() if names else [{}] * len(ids)
        texts = [json.dumps({n: v for n, v in row.items() if v is not None}) for row in rows]
        with self._together():
            self._write_features(ids, texts)

    def limit(self, keep: int | None = None, days: float | None = None) -> bool:
        """Keep another number of events of each list, or for so many days; returns whether more
        is kept than before, which only events that come again can bring. What is given as None
        stays as it is; less is forgotten where users have new events."""
        old = self.rules
        values = {"keep": old.keep if keep is None else keep, "days": days or old.days}
        rules = Rules.model_validate({**old.model_dump(), **values})
        if rules != old:
            self.remember(Mark(_RULES, rules.model_dump_json(exclude_none=True)))
            self.rules = rules
        older = old.days is not None and (rules.days or 0) > old.days
        return rules.keep > old.keep or older

    def forget(self, users: pa.Array) -> int:
        """Remove all that is known of users; returns how many of them were there. An event that
        comes again is added again, but a log that was synced is not read again for that."""
        return self._forget(self._ids(users).drop_null().unique().to_pylist())

    def sweep(self) -> None:
        """Forget users all of whose events are too old."""
        if self.rules.days is not None:
            self._forget_before(self._since())

    # -- how --------------------------------------------------------------------------------------

    def _settle(self, rules: Rules | None, alike: bool) -> None:
        """Take the rules that are kept here, or keep those that are given, of which the limits
        are for new stores alone. Raises DataError where none are kept, or others and they have to
        be `alike`."""
        if rules is not None:
            self.remember(Mark(_RULES, rules.model_dump_json(exclude_none=True)), once=True)
        text = self.remembered(_RULES)
        if text is None:
            raise DataError(
                f"{self.shown} holds no users: make it by `recsys online sync RUN {self.shown}`"
            )
        try:
            self.rules = Rules.model_validate_json(text)
        except ValidationError:
            raise DataError(f"{self.shown} cannot be read: it is of another version") from None
        if alike and rules is not None and (other := self.rules.differs(rules)):
            raise DataError(
                f"{self.shown} keeps histories by other rules ({', '.join(other)}): sync to "
                "another store"
            )

    def _ids(self, users: pa.Array) -> pa.Array:
        kind = self.schema.field(self.rules.log.user).type
        try:
            return as_ids(users, kind)
        except (pa.ArrowException, ValueError) as error:
            raise DataError(f"users must be of type {kind}: {error}") from None

    def _since(self) -> int:
        """The first moment that is not too old."""
        if self.rules.days is None:
            return NEVER
        return int(self._clock() * _MICROS - self.rules.days * DAY)

    @property
    def _item_kind(self) -> pa.DataType:
        return self.rules.log[self.rules.log.item].arrow_type

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise DataError(f"{self.shown}: {error}") from None

    def _adding(self, arrived: Events, since: int) -> Change:
        def change(records: Sequence[bytes | None]) -> tuple[Changed, int]:
            """The records with what has arrived."""
            with self._reading():
                held, newest = unpack(records, self._item_kind)
            merged = merge(
                held,
                newest,
                arrived,
                lists=len(self.rules.histories),
                keep=self.rules.keep,
                since=since,
            )
            which = merged.changed[merged.events.owner]
            places = np.flatnonzero(merged.changed)
            events = merged.events.take(which)
            owner = np.searchsorted(places, events.owner)
            texts = pack(Events(owner, events.rows, events.items), merged.newest[places])
            moments = merged.newest[places].tolist()
            changed = zip(places.tolist(), zip(texts, moments, strict=True), strict=True)
            return dict(changed), merged.added

        return change

    def _lists(self, events: Events, users: int, before: int | None) -> dict[str, pa.Array]:
        """The lists of U users, and the seconds beside each, of at most `keep` events."""
        since, lists = self._since(), {}
        seconds = events.rows["time"] // _MICROS
        there = events.rows["time"] >= since
        if before is not None:
            there &= seconds < before
        for place, name in enumerate(self.rules.histories):
            inside = (events.rows["lists"] >> np.uint32(place)) & np.uint32(1) == 1
            which = np.flatnonzero(inside & there)
            ends = np.searchsorted(events.owner[which], np.arange(users), side="right")
            from_end = ends[events.owner[which]] - np.arange(len(which))
            which = which[from_end <= self.rules.keep]
            bounds = np.searchsorted(events.owner[which], np.arange(users + 1))
            offsets = pa.array(bounds.astype(np.int32))
            items = events.items.take(pa.array(which))
            lists[name] = pa.ListArray.from_arrays(offsets, items)
            lists[time_of(name)] = pa.ListArray.from_arrays(offsets, pa.array(seconds[which]))
        return lists

    def _features(self, texts: Sequence[str | None], names: Sequence[str]) -> dict[str, pa.Array]:
        asked = [field for field in self.rules.features if field.name in names]
        rows: list[dict[str, Any]] = (
            [json.loads(text) if text else {} for text in texts] if asked else []
        )
        return {
            field.name: pa.array([row.get(field.name) for row in rows], field.type)
            for field in asked
        }
