"""Append: a source's rows join a store that is there, and nothing of its log is written again.

Events that are there already are found by an anti-join and left out, so that what was sent twice,
or stopped halfway, is sent again without harm. Events are the same where the columns of
`schema.unique` are equal, or, where it names none, all columns are: of so many equal rows in the
source, as many as the log does not hold yet are new.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.catalogue import Catalogue, CatalogueSide
from feature_store.columns import POSITION
from feature_store.durable import locked, staging
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest.quarantine import Quarantine
from feature_store.ingest.repeats import LineMap, add_repeats
from feature_store.ingest.store import (
    APPEND_ROWS,
    QUARANTINE,
    Appended,
    Count,
    IngestReport,
    read_events,
    store_side,
)
from feature_store.parquet import open_parquet
from feature_store.progress import Progress
from feature_store.schema import Schema
from feature_store.sources.base import Source
from feature_store.storage import Place

_COPY = "_copy"  # how many rows before it are equal in all columns
_STRETCHES = 8  # of days, each of which is a scan


def append(
    source: Source,
    folder: Path,
    *,
    quarantine: bool = False,
    progress: Progress | None = None,
    engine: EngineConfig | None = None,
) -> Appended:
    """Add the events of a source that the store does not hold yet, and what the source says of
    items and users. A source that was added before is left as it is.

    New events lie in files of their own, behind those that are there, whenever they happened; ids
    that are known keep all that was made of them. Of an item or user that is known the attributes
    are replaced by what the source says now. Rows that cannot be stored stop it before anything is
    written, or are set aside with `quarantine` in `quarantine_<number>.parquet`.

    Raises DataError for such rows, for a folder that holds no store, and for a source whose columns
    are not those of the log.
    """
    report = IngestReport.load(folder)
    log = EventLog.open(folder)
    _check_columns(source.schema, log)
    fingerprint = source.fingerprint()
    with locked(log.on_disk / "events"), staging(log.on_disk / "append") as aside:
        report = IngestReport.load(folder)  # another program may have added to it meanwhile
        for part in report.appended:
            if part.source_fingerprint == fingerprint:
                return part
        started = monotonic()  # the clock of the day may jump
        bad = Quarantine(aside / QUARANTINE, set_aside=quarantine)
        try:
            with Engine(engine) as tables:
                done = _append(tables, source, log, report, aside, bad, progress or _silent)
        finally:
            bad.close()
        if bad.rows:
            name = f"{Path(QUARANTINE).stem}_{len(report.appended) + 1:06d}.parquet"
            os.replace(aside / QUARANTINE, log.on_disk / name)
        seconds = round(monotonic() - started, 3)
        done = done.model_copy(
            update={
                "source_fingerprint": fingerprint,
                "reasons": dict(bad.reasons.most_common()),
                "finished": datetime.now(UTC),
                "seconds": seconds,
            }
        )
        _with(report, log, done).save(log.on_disk)
    return done


def _silent(rows: int, read_bytes: int) -> None:
    """Told how far the work is, where nobody asks."""


def _check_columns(schema: Schema, log: EventLog) -> None:
    """Raises DataError naming what differs from the log's schema."""
    if schema.fingerprint == log.schema.fingerprint:
        return
    now, before = ({f.name: f for f in each.features} for each in (schema, log.schema))
    told = [f"+{name}" for name in now if name not in before]
    told += [f"-{name}" for name in before if name not in now]
    told += [
        f"{name} is {now[name].dtype} of kind {now[name].kind}, was {before[name].dtype} of kind "
        f"{before[name].kind}"
        for name in now
        if name in before and now[name] != before[name]
    ]
    raise DataError(
        f"{log.folder} cannot be added to: the columns of the source differ from the log's "
        f"({', '.join(told) or 'in their roles'}); give the source the same columns and options, "
        "or ingest all of it anew"
    )


def _append(
    engine: Engine,
    source: Source,
    log: EventLog,
    report: IngestReport,
    aside: Path,
    bad: Quarantine,
    progress: Progress,
) -> Appended:
    """Sift, compare and write; what it leaves open is known to who calls it.

    What an append has written that was killed before it was reported counts as written now: of the
    same delivery the report is that of an append that nobody disturbed.
    """
    sides: tuple[CatalogueSide, ...] = ("item", "user")
    counts = {side: store_side(source, side, aside, bad) for side in sides}
    before = bad.rows
    arrived, read, lines = read_events(source, aside, bad, progress)
    near, compared = None, 0
    if arrived.files:
        near, compared = _near(engine, log, arrived, _untold(log, report))
    new = engine.scan(arrived.files) if arrived.files else engine.table(_none_of(log))
    fresh = engine.cache(_fresh(new, near, log.schema))
    if log.schema.unique:
        _set_altered_aside(engine, new, fresh, near, log.schema, lines, bad)
    names = log.schema.events_schema().names
    for side in sides:
        if counts[side].stored:
            _merge(log, side, Catalogue(aside, log.schema))
    for table in _chunks(engine, fresh.order_by(POSITION).select(names)):
        log.append(table)
    facts = _facts(engine, log, _untold(log, report))
    quarantined = bad.rows - before
    return Appended(
        source_fingerprint="",
        events=Count(read=read, stored=facts["n"], quarantined=quarantined),
        repeated=max(read - facts["n"] - quarantined, 0),
        late=facts["late"] or 0,
        compared=compared,
        new_items=_new(log, "item", report.items),
        new_users=_new(log, "user", report.users),
        first=facts["first"],
        last=facts["last"],
        finished=datetime.now(UTC),
        seconds=0,
    )


def _untold(log: EventLog, report: IngestReport) -> list[Place]:
    """The files of the log that the report does not tell of."""
    files, rows = [], 0
    for path in log.files:
        if rows >= report.events.stored:
            files.append(path)
        rows += open_parquet(path).metadata.num_rows
    return files


def _facts(engine: Engine, log: EventLog, files: list[Place]) -> dict[str, Any]:
    """Number, first and last of the events in files that were added, and how many happened before
    others that were there."""
    if not files:
        return {"n": 0, "first": None, "last": None, "late": 0}
    events = engine.scan(files)
    moments = events[log.schema.time]
    newest = max((g.last for g in log.row_groups() if g.path not in files), default=None)
    late = (moments < ibis.timestamp(newest)).sum() if newest is not None else ibis.literal(0)
    asked = events.aggregate(n=events.count(), first=moments.min(), last=moments.max(), late=late)
    return dict(engine.collect(asked).to_pylist()[0])


def _new(log: EventLog, side: CatalogueSide, told: Count) -> int:
    """Rows of the catalogue that the report does not tell of."""
    path = Catalogue(log.folder, log.schema).path(side)
    return open_parquet(path).metadata.num_rows - told.stored if path.exists() else 0


def _none_of(log: EventLog) -> pa.Table:
    position = pa.field(POSITION, pa.int64())
    return log.schema.events_schema().append(position).empty_table()


def _near(
    engine: Engine, log: EventLog, arrived: EventLog, untold: list[Place]
) -> tuple[ir.Table | None, int]:
    """The events of the log that may be among those that arrived, and how many are read, without
    those in `untold` files: those of the same days, or all, where what is unique does not tell the
    time. None where there are none."""
    unique = log.schema.unique
    if unique and log.schema.time not in unique:
        rows = sum(g.rows for g in log.row_groups() if g.path not in untold)
        return (engine.scan(log.files), rows) if log.files else (None, 0)
    parts, compared = [], 0
    for first, last in _stretches(engine, arrived):
        groups = log.row_groups(first, last)
        if not groups:
            continue
        compared += sum(group.rows for group in groups if group.path not in untold)
        events = engine.scan(list(dict.fromkeys(group.path for group in groups)))
        begin, end = (
            ibis.timestamp(datetime.combine(day, time())) for day in (first, last + timedelta(1))
        )
        when = events[log.schema.time]
        parts.append(events.filter((when >= begin) & (when < end)))
    return (ibis.union(*parts) if len(parts) > 1 else parts[0] if parts else None), compared


def _stretches(engine: Engine, arrived: EventLog) -> list[tuple[date, date]]:
    """First and last days of stretches in which something happened that arrived now: a few late
    events do not ask for all days since."""
    events = engine.scan(arrived.files)
    days = engine.collect(events.select(day=events[arrived.schema.time].date()).distinct())
    ordered = sorted(days["day"].to_pylist())
    gaps = sorted(pairwise(ordered), key=lambda pair: pair[1] - pair[0])
    cuts = {before for before, after in gaps[-_STRETCHES + 1 :] if after - before > timedelta(1)}
    stretches, first = [], ordered[0]
    for before, after in pairwise(ordered):
        if before in cuts:
            stretches.append((first, before))
            first = after
    return [*stretches, (first, ordered[-1])]


def _fresh(new: ir.Table, near: ir.Table | None, schema: Schema) -> ir.Table:
    """The events that the log does not hold; of those that are the same the first."""
    names, unique = schema.events_schema().names, list(schema.unique)
    if unique:
        copies = _numbered(new, unique)
        first = (copies[_COPY] == 0) | ibis.or_(*(copies[name].isnull() for name in unique))
        fresh = copies.filter(first).drop(_COPY)
        return fresh if near is None else fresh.anti_join(near, unique)
    if near is None:
        return new
    mine, theirs = (_numbered(events, names) for events in (new, near))
    same = [mine[name].identical_to(theirs[name]) for name in names]
    return mine.anti_join(theirs, [*same, mine[_COPY] == theirs[_COPY]]).drop(_COPY)


def _numbered(events: ir.Table, names: list[str]) -> ir.Table:
    """With how many rows before each are equal to it in these columns."""
    alike = [events[name] for name in names]
    copy = ibis.row_number().over(group_by=alike, order_by=events[POSITION])
    return events.mutate(**{_COPY: copy})


def _set_altered_aside(
    engine: Engine,
    new: ir.Table,
    fresh: ir.Table,
    near: ir.Table | None,
    schema: Schema,
    lines: LineMap,
    bad: Quarantine,
) -> None:
    """Events that are not new, and say something else than the one that is there, are bad rows."""
    names = schema.events_schema().names
    rest = new.anti_join(fresh, POSITION)
    held = fresh.select(names)
    held = held if near is None else held.union(near.select(names))
    same = [rest[name].identical_to(held[name]) for name in names]
    altered = rest.anti_join(held, same).select([*names, POSITION]).order_by(POSITION)
    rows = engine.collect(altered)
    if rows.num_rows:
        positions = rows[POSITION].to_numpy()
        add_repeats(rows.drop_columns([POSITION]), positions, list(schema.unique), lines, bad)


def _chunks(engine: Engine, rows: ir.Table) -> Iterator[pa.Table]:
    """The rows in tables of as many as an ingest appends at a time, so that files do not depend on
    how the engine streams."""
    held: list[pa.RecordBatch] = []
    for batch in engine.stream(rows):
        held.append(batch)
        while sum(part.num_rows for part in held) >= APPEND_ROWS:
            whole = pa.Table.from_batches(held)
            yield whole.slice(0, APPEND_ROWS)
            held = whole.slice(APPEND_ROWS).to_batches()
    if held:
        yield pa.Table.from_batches(held)


def _merge(log: EventLog, side: CatalogueSide, told: Catalogue) -> None:
    """Put what a source says of one side into the catalogue: known rows stay where they are, new
    ones follow."""
    catalogue, key = Catalogue(log.folder, log.schema), getattr(log.schema, side)
    before, now = catalogue.read(side), told.read(side)
    place = pc.index_in(before[key], value_set=now[key].combine_chunks())
    missing = np.asarray(place.is_null().combine_chunks())
    rows = np.asarray(place.fill_null(0).combine_chunks()) + before.num_rows
    rows[missing] = np.flatnonzero(missing)
    known = pc.is_in(now[key], value_set=before[key].combine_chunks())
    added = np.flatnonzero(~np.asarray(known.combine_chunks()))
    both = pa.concat_tables([before, now.cast(before.schema)])
    merged = both.take(pa.array(np.concatenate([rows, before.num_rows + added])))
    if not merged.equals(before):
        catalogue.write(side, merged)


def _with(report: IngestReport, log: EventLog, done: Appended) -> IngestReport:
    """The report of a store to which something was added."""
    events = Count(
        read=report.events.read + done.events.read,
        stored=log.num_rows,
        quarantined=report.events.quarantined + done.events.quarantined,
    )
    sides = {
        f"{side}s": getattr(report, f"{side}s").model_copy(
            update={"stored": getattr(report, f"{side}s").stored + new}
        )
        for side, new in (("item", done.new_items), ("user", done.new_users))
    }
    return report.model_copy(
        update={
            "log_fingerprint": log.fingerprint,
            "events": events,
            **sides,
            "distinct_items": None,
            "distinct_users": None,
            "appended": (*report.appended, done),
        }
    )
