"""Examples of a log that has grown by a day, from those that were made before it did.

Rows of training and evaluation are made anew of those users alone who did anything since the
window began, of all that they ever did; what counts events takes up the difference, and what lists
all events or users takes a further file. So a day costs what came, and the histories of whoever
came, however long the log is. What comes out is what would come of the whole log.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.by_user import ByUser
from feature_store.catalogue import Catalogue
from feature_store.columns import (
    COST,
    ITEM_ROW,
    KNOWN_EVENTS,
    LAST_COST,
    LAST_PRICE,
    POSITION,
    PRICE,
    ROLE,
    TRAIN_EVENTS,
    moment_of,
)
from feature_store.engine import Engine
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples.spec import MADE_FROM, ExamplesSummary, RowsOf, parts_of
from feature_store.money import last_known
from feature_store.parquet import open_parquet, read_parquet
from feature_store.protocols import LEARNT, AnyProtocol, GlobalTime
from feature_store.schema import Schema
from feature_store.splits import Split, make_split
from feature_store.trees import json_tree

if TYPE_CHECKING:
    import ibis.expr.types as ir

_FILES = 32  # of a table that takes one a day, before it is written anew
_MOMENTS = ("validation_start", "test_start")


@dataclass(frozen=True)
class Before:
    """Examples of a log as it was: where they lie, what they say of themselves, how many events
    the log held, and who might be seen when."""

    folder: Path
    summary: ExamplesSummary
    rows: int
    protocol: GlobalTime

    def was(self, events: ir.Table, schema: Schema) -> ir.StringColumn:
        """The role that each event had; empty where it had not come."""
        role = self.protocol.role(events, schema)
        return (events[POSITION] < self.rows).ifelse(role, "")

    def had(self, events: ir.Table, schema: Schema, roles: Collection[str]) -> ir.BooleanColumn:
        """Whether each event had come with one of the roles."""
        return self.was(events, schema).isin(list(roles))


@dataclass(frozen=True)
class Grown:
    """What examples are to be made of: the `split` of the events of whoever came since; `users` are
    those of whom there is something new."""

    before: Before
    split: Split
    users: pa.Array

    def counts(self, engine: Engine) -> dict[str, int]:
        """Events of every role in the whole log."""
        events, schema = self.split.events, self.split.schema
        was = events.mutate(_was=self.before.was(events, schema))
        changes = engine.collect(was.group_by([ROLE, "_was"]).aggregate(n=was.count()))
        counts = dict(self.before.summary.events)
        for row in changes.to_pylist():
            for role, sign in ((row[ROLE], 1), (row["_was"], -1)):
                if role:
                    counts[role] = counts.get(role, 0) + sign * row["n"]
        return dict(sorted(counts.items()))

    def newly(self, events: ir.Table, roles: Collection[str]) -> ir.Table:
        """Of encoded events those that have one of the roles now, and had not."""
        had = self.before.had(events, self.split.schema, roles)
        return events.filter(events[ROLE].isin(list(roles)) & ~had)

    def with_counts(
        self, engine: Engine, items: pa.Table, events: ir.Table, train_roles: tuple[str, ...]
    ) -> pa.Table:
        """Item rows with counts of events and the last known prices and costs, as they were, and
        with what `events` have changed."""
        schema, rows = self.split.schema, items.num_rows
        old = read_parquet(self.before.folder / "items.parquet")
        for name, roles in ((TRAIN_EVENTS, train_roles), (KNOWN_EVENTS, LEARNT)):
            new = self.newly(events, roles)
            counts = engine.collect(new.group_by(ITEM_ROW).aggregate(n=new.count()))
            of_item = np.zeros(rows, dtype=np.int64)
            of_item[: old.num_rows] = old[name].to_numpy()
            of_item[np.asarray(counts[ITEM_ROW])] += np.asarray(counts["n"])
            items = items.append_column(name, pa.array(of_item))
        learnt = self.newly(events, LEARNT)
        for role, name, last in ((schema.price, PRICE, LAST_PRICE), (schema.cost, COST, LAST_COST)):
            if role is None:
                continue
            newest = last_known(engine, learnt, schema, name, ITEM_ROW, rows)
            more = pa.nulls(rows - old.num_rows, pa.int64())
            columns = [last, moment_of(last)]
            theirs = [
                pa.concat_arrays([old[c].combine_chunks(), more.cast(old[c].type)]) for c in columns
            ]
            at = pc.fill_null(theirs[1], np.iinfo(np.int64).min)
            later = pc.fill_null(pc.greater_equal(newest.moments, at), False)
            for column, new_values, values in zip(columns, newest, theirs, strict=True):
                items = items.append_column(column, pc.if_else(later, new_values, values))
        return items

    def carry(self, name: str, folder: Path) -> Path:
        """Share the files of a table that takes one a day with a new folder of examples; returns
        the path of the next one."""
        own = folder / f"{name}.parquet"
        own.mkdir()
        parts = parts_of(self.before.folder, name)
        for number, path in enumerate(parts):
            copied = own / f"{number:05d}.parquet"
            try:
                os.link(str(path), copied)
            except OSError:  # on another disk
                shutil.copyfile(str(path), copied)
        return own / f"{len(parts):05d}.parquet"


def held_before(
    folder: Path,
    log: EventLog,
    catalogue: Catalogue,
    protocol: AnyProtocol,
    rows_of: RowsOf,
    history_length: int,
    train_roles: tuple[str, ...],
    since: datetime | None,
) -> Before | None:
    """The examples in a folder, where those that are wanted can be grown from them; None where they
    have to be made of the whole log.

    They can be where the log begins with the one that they were made of, the protocol is
    `global_time` at moments, not earlier ones, which counts nobody's events, and a window begins
    no later than validation.
    """
    if not _by_moments(protocol) or since is None or not isinstance(log.folder, Path):
        return None
    try:
        summary = ExamplesSummary.load(folder)
        made_from: dict[str, Any] = json_tree((folder / MADE_FROM).read_text())
        theirs = GlobalTime.model_validate(made_from["split"])
    except (DataError, OSError, ValueError, KeyError, TypeError):
        return None
    well = (
        _by_moments(theirs)
        and all(_moment(theirs, name) <= _moment(protocol, name) for name in _MOMENTS)
        and _without_moments(theirs) == _without_moments(protocol)
        and (summary.rows_of, summary.history_length) == (rows_of, history_length)
        and summary.train_roles == train_roles
        and not rows_of.labels
        and summary.log_rows is not None
        and summary.parts["data"] in log.fingerprints_of_appends
        and summary.told_of_users == told_of_users(catalogue, summary.told_of_users[0])
        and _stamp(since) <= _moment(protocol, _MOMENTS[0])
        and all(len(parts_of(folder, name)) < _FILES for name in ("interactions", "serving"))
    )
    if not well:
        return None
    assert summary.log_rows is not None
    return Before(folder, summary, summary.log_rows, theirs)


def grow(
    engine: Engine,
    log: EventLog,
    catalogue: Catalogue,
    held: Before,
    protocol: AnyProtocol,
    since: datetime | None,
) -> Grown:
    """Read what came, and all that whoever came ever did; nothing else of the log is read.
    Protocol and `since` are those that `held_before` was asked with."""
    assert since is not None
    schema = log.schema
    first = min(_stamp(since), _moment(held.protocol, _MOMENTS[0]))
    active, new, read = _came(log, held, first)
    told = catalogue.read("user")[schema.user].combine_chunks()  # what it says of them may be new
    known, _ = held.summary.told_of_users
    new = pc.unique(pa.concat_arrays([new, told.slice(known)]))
    by_user = ByUser(log)
    events = by_user.events_of(pc.unique(pa.concat_arrays([active, new])))
    split = make_split(engine, log, protocol, events=engine.table(events))
    read += events.num_rows + by_user.made
    grown = Grown(held, split, new)
    return replace(grown, split=replace(split, counts=grown.counts(engine), read=read))


def told_of_users(catalogue: Catalogue, rows: int | None = None) -> tuple[int, str]:
    """How many users a catalogue, or its first `rows`, tells of, and a digest of what it says."""
    told = catalogue.read("user")
    count = told.num_rows if rows is None else min(rows, told.num_rows)
    told = told.take(pa.array(np.arange(count)))  # a copy: a slice is written otherwise
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, told.schema) as writer:
        writer.write_table(told.combine_chunks())
    return told.num_rows, hashlib.sha256(sink.getvalue()).hexdigest()[:16]


def _came(log: EventLog, held: Before, first: int) -> tuple[pa.Array, pa.Array, int]:
    """Users with an event from the moment `first` (microseconds) on, those of events that had not
    come before, and how many events were read for it."""
    schema = log.schema
    kind = schema.events_schema().field(schema.user).type
    active, new, read = [pa.array([], kind)], [pa.array([], kind)], 0
    for path in log.files:
        with open_parquet(path) as file:
            places = {name: file.schema_arrow.names.index(name) for name in (schema.time, POSITION)}
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                time, position = (group.column(p).statistics for p in places.values())
                late = position.max >= held.rows
                if not late and _microseconds(time.max) < first:
                    continue
                rows = file.read_row_group(number, [schema.user, schema.time, POSITION])
                read += rows.num_rows
                at = rows[schema.time].cast(pa.int64())
                users = rows[schema.user].combine_chunks()
                came = pc.greater_equal(rows[POSITION], held.rows).combine_chunks()
                lately = pc.greater_equal(at, first).combine_chunks()
                new.append(pc.unique(users.filter(came)))
                active.append(pc.unique(users.filter(lately)))
    return pc.unique(pa.concat_arrays(active)), pc.unique(pa.concat_arrays(new)), read


def _by_moments(protocol: AnyProtocol) -> bool:
    """Whether the role of an event follows from its time alone, by moments that are given."""
    return (
        isinstance(protocol, GlobalTime)
        and None not in (protocol.validation_start, protocol.test_start)
        and protocol.candidates != "shown"
        and protocol.min_user_events == protocol.min_item_events == 1
    )


def _without_moments(protocol: AnyProtocol) -> AnyProtocol:
    return protocol.model_copy(update=dict.fromkeys(_MOMENTS))


def _moment(protocol: AnyProtocol, name: str) -> int:
    return _stamp(getattr(protocol, name))


def _stamp(moment: datetime) -> int:
    """Microseconds since 1970; a moment without a time zone is UTC."""
    return _microseconds(moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment)


def _microseconds(moment: datetime) -> int:
    return int(np.datetime64(moment, "us").astype(np.int64))
