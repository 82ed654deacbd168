"""Ingest: a source's raw rows become a store, all of them or an error that names the first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from feature_store.catalogue import Catalogue, CatalogueSide
from feature_store.conform import Conformed, conform
from feature_store.durable import restore, staged, write_text
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest.doubts import doubtful_price
from feature_store.ingest.quarantine import Quarantine
from feature_store.ingest.repeats import (
    LineMap,
    add_repeats,
    distinct,
    events_unknown_to,
    set_repeats_aside,
)
from feature_store.progress import Progress, bar
from feature_store.sources.base import BadRow, RawChunk, Source, raw_rows
from feature_store.storage import Place, Remote, place

APPEND_ROWS = 1 << 20  # fixed, so that a log does not depend on how its source cuts chunks
_REPEATS = 1 << 14
REPORT = "ingest.json"
QUARANTINE = "quarantine.parquet"


class Count(BaseModel):
    """Rows of one kind: read from the source, stored, and set aside."""

    model_config = ConfigDict(frozen=True)
    read: int = 0
    stored: int = 0
    quarantined: int = 0


class Appended(BaseModel):
    """What an append did. `repeated` events were in the store already, `late` ones are older than
    the newest that it had held, and `compared` says how many of its events were read to know."""

    model_config = ConfigDict(frozen=True)
    source_fingerprint: str
    events: Count
    repeated: int = 0
    late: int = 0
    compared: int = 0
    new_items: int = 0
    new_users: int = 0
    reasons: dict[str, int] = {}
    first: datetime | None = None
    last: datetime | None = None
    finished: datetime
    seconds: float


class IngestReport(BaseModel):
    """What an ingest did; saved as `ingest.json` in the store.

    `items` and `users` count those of the source's catalogue, `distinct_items` and `distinct_users`
    those that events name. `reasons` counts quarantined rows by reason. `events_without_item`
    (`_user`) counts events whose item (user) the source's items (users) do not list; they are
    stored like any other.
    `renamed` holds the columns whose features are called otherwise, and how.
    `doubts` are sentences about what was stored and can hardly be meant.
    `appended` holds what joined the store later; then `events`, `items` and `users` count all of
    it, and who is `distinct` is not counted again.
    """

    model_config = ConfigDict(frozen=True)
    source: str
    options: dict[str, Any]
    source_fingerprint: str
    log_fingerprint: str
    events: Count
    items: Count
    users: Count
    distinct_items: int | None = None
    distinct_users: int | None = None
    reasons: dict[str, int]
    renamed: dict[str, str] = {}
    events_without_item: int
    events_without_user: int
    doubts: tuple[str, ...] = ()
    finished: datetime
    seconds: float
    appended: tuple[Appended, ...] = ()

    @property
    def sources(self) -> set[str]:
        """The fingerprints of all that the store was made of."""
        return {self.source_fingerprint, *(part.source_fingerprint for part in self.appended)}

    def save(self, store: Path) -> None:
        """Write `ingest.json`."""
        write_text(json.dumps(self.model_dump(mode="json"), indent=2) + "\n", store / REPORT)

    @classmethod
    def load(cls, folder: Place) -> IngestReport:
        """The report of a store. Raises DataError when the folder holds none."""
        path = place(folder) / REPORT
        try:
            return cls.model_validate_json(path.read_text())
        except FileNotFoundError:
            raise DataError(f"{path} not found: is this a store made by `recsys ingest`?") from None
        except (ValidationError, OSError, ValueError):
            raise DataError(f"{path} is not a report of an ingest") from None


def ingest(
    source: Source,
    folder: Path,
    *,
    quarantine: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
    engine: EngineConfig | None = None,
) -> IngestReport:
    """Read a source into the store `folder`; a store that has all of it already, whatever was
    appended since, is left as it is.

    The store appears whole or not at all; one in object storage is taken as it is. `quarantine`
    sets rows that cannot be stored aside in `quarantine.parquet` (of rows that repeat each other
    the first stays); `replace` replaces a store made from another source. Without `progress` a bar
    is shown on a terminal.

    Raises:
        DataError: a row cannot be stored, the source cannot be read or holds no event, or the
            folder holds something else.
    """
    fingerprint = source.fingerprint()
    if isinstance(at := place(folder), Remote):
        return _pushed(at, fingerprint)
    folder = at
    restore(folder.absolute())
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not (folder / REPORT).exists():
            raise DataError(f"{folder} exists and is no store: choose another folder")
        report = IngestReport.load(folder)
        if fingerprint in report.sources:
            return report
        if not replace:
            raise DataError(
                f"{folder} holds a store made from another source ({report.source}, or other "
                "options or files): add to it with --append, replace it with --replace, or choose "
                "another folder"
            )
    name = str(source.model_dump()["source"])
    shown = (
        nullcontext(progress)
        if progress
        else bar(f"ingest {name}", total_bytes=source.total_bytes, total_rows=source.total_rows)
    )
    with staged(folder) as staging, Engine(engine) as tables, shown as update:
        report = _build(tables, source, name, fingerprint, staging, quarantine, update)
    return report


def _pushed(store: Remote, fingerprint: str) -> IngestReport:
    """The report of a store in object storage, where it is of this source."""
    report = IngestReport.load(store)
    if fingerprint not in report.sources:
        raise DataError(
            f"{store} holds a store made from another source ({report.source}, or other options or "
            "files): ingest into a folder, and `recsys push` that"
        )
    return report


def _build(
    engine: Engine,
    source: Source,
    name: str,
    fingerprint: str,
    store: Path,
    set_aside: bool,
    progress: Progress,
) -> IngestReport:
    started = monotonic()  # the clock of the day may jump
    aside = Quarantine(store / QUARANTINE, set_aside=set_aside)
    counts: dict[str, Count] = {}
    try:
        sides: tuple[CatalogueSide, ...] = ("item", "user")
        for side in sides:  # first, because they are small and their errors come soon
            counts[side] = store_side(source, side, store, aside)
        log, counts["event"] = store_events(engine, source, store, aside, progress)
    finally:
        aside.close()
    truth = store / "truth"
    truth.mkdir()
    source.save_truth(truth)
    if not any(truth.iterdir()):
        truth.rmdir()
    unknown = {
        side: events_unknown_to(engine, log, side) if counts[side].read else 0 for side in sides
    }
    report = IngestReport(
        source=name,
        options=source.model_dump(mode="json"),
        source_fingerprint=fingerprint,
        log_fingerprint=log.fingerprint,
        events=counts["event"],
        items=counts["item"],
        users=counts["user"],
        distinct_items=distinct(engine, log, "item"),
        distinct_users=distinct(engine, log, "user"),
        reasons=dict(aside.reasons.most_common()),
        renamed=source.renamed,
        events_without_item=unknown["item"],
        events_without_user=unknown["user"],
        doubts=tuple(filter(None, [doubtful_price(engine, log)])),
        finished=datetime.now(UTC),
        seconds=round(monotonic() - started, 3),
    )
    report.save(store)
    return report


@dataclass(frozen=True)
class _Good:
    """Rows that fit, and where they stood."""

    table: pa.Table
    file: str
    lines: np.ndarray  # [rows] int64


def _sift(chunks: Iterable[RawChunk], schema: pa.Schema, aside: Quarantine) -> Iterator[_Good]:
    """The rows that fit, chunk by chunk; the others go to the quarantine."""
    for chunk in chunks:
        checked = conform(chunk.table, schema)
        bad = [*chunk.bad, *_misfits(chunk, checked)]
        aside.add(chunk.file, sorted(bad, key=lambda row: row.line))
        if chunk.num_rows != checked.table.num_rows + len(bad):
            raise AssertionError(f"{chunk.file}: rows were lost between reading and storing")
        yield _Good(checked.table, chunk.file, chunk.lines[checked.rows])


def _misfits(chunk: RawChunk, checked: Conformed) -> list[BadRow]:
    firsts = {problem.row: problem for problem in reversed(checked.problems)}  # one a row
    rows = sorted(firsts)
    raws = raw_rows(chunk.table, np.array(rows, dtype=np.int64))
    return [
        BadRow(int(chunk.lines[row]), p.column, p.reason, raw, p.value)
        for row, raw in zip(rows, raws, strict=True)
        for p in (firsts[row],)
    ]


def store_side(source: Source, side: CatalogueSide, store: Path, aside: Quarantine) -> Count:
    """Write what a source says of its items, or users, without repeated ids."""
    chunks = source.read_items() if side == "item" else source.read_users()
    schema = source.schema.side_schema(side)
    before, lines, tables = aside.rows, LineMap(), []
    for good in _sift(chunks, schema, aside):
        tables.append(good.table)
        lines.add(good.file, good.lines)
    total = aside.rows - before + sum(table.num_rows for table in tables)
    if not total:
        return Count()
    table = pa.concat_tables(tables).combine_chunks()
    key = getattr(source.schema, side)
    repeats = table[key].to_pandas().duplicated(keep="first").to_numpy()
    if repeats.any():
        rows = np.flatnonzero(repeats)
        for start in range(0, len(rows), _REPEATS):  # as texts they are far larger
            part = rows[start : start + _REPEATS]
            more = len(rows) - start - len(part)
            add_repeats(table.take(pa.array(part)), part, [key], lines, aside, more=more)
        table = table.filter(pa.array(~repeats))
    read = table.num_rows + aside.rows - before
    if read != total:
        raise AssertionError(f"{side}s: {total} rows read, {read} stored or set aside")
    Catalogue(store, source.schema).write(side, table)
    return Count(read=read, stored=table.num_rows, quarantined=aside.rows - before)


def store_events(
    engine: Engine, source: Source, store: Path, aside: Quarantine, progress: Progress
) -> tuple[EventLog, Count]:
    """Make a log of a source's events, without those that repeat an earlier one."""
    before = aside.rows
    log, read, lines = read_events(source, store, aside, progress)
    log = set_repeats_aside(engine, log, lines, aside)
    stored, quarantined = log.num_rows, aside.rows - before
    if read != stored + quarantined:
        raise AssertionError(f"{read} events read, {stored} stored, {quarantined} set aside")
    if not stored:
        raise DataError(f"none of the {read:,} events can be stored; the first: {aside.first}")
    return log, Count(read=read, stored=stored, quarantined=quarantined)


def read_events(
    source: Source, store: Path, aside: Quarantine, progress: Progress
) -> tuple[EventLog, int, LineMap]:
    """Make a log of the events of a source that fit, how many there were, and where they stood.

    Raises DataError where there are none, and for bad rows that are not to be set aside.
    """
    log = EventLog.create(store, source.schema)
    lines, read, read_bytes = LineMap(), 0, 0

    def watched() -> Iterator[RawChunk]:
        nonlocal read, read_bytes
        for chunk in source.read_events():
            yield chunk
            read += chunk.num_rows
            read_bytes += chunk.read_bytes
            progress(read, read_bytes)

    waiting: list[pa.Table] = []
    for good in _sift(watched(), source.schema.events_schema(), aside):
        lines.add(good.file, good.lines)
        waiting.append(good.table)
        if sum(table.num_rows for table in waiting) >= APPEND_ROWS:
            whole = pa.concat_tables(waiting)
            full = whole.num_rows // APPEND_ROWS * APPEND_ROWS
            for start in range(0, full, APPEND_ROWS):
                log.append(whole.slice(start, APPEND_ROWS))
            waiting = [whole.slice(full)]
    if waiting:
        log.append(pa.concat_tables(waiting))
    if not read:
        where = "".join(f" {path}" for path in (getattr(source, "path", None),) if path)
        raise DataError(f"the source{where} holds no events: its files have no row beside headers")
    return log, read, lines
