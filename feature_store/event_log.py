"""EventLog: append-only Parquet, one file an append, found by day through names and footers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import POSITION
from feature_store.conform import conform
from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.parquet import check_columns, check_parquet, open_parquet
from feature_store.schema import Schema
from feature_store.storage import Place, on_disk, place

_DIGEST = b"recsys.sha256"
_NAME = re.compile(r"[\d-]+_[\d-]+_(\d+)(?:-(\d+))?\.parquet")


@dataclass(frozen=True)
class RowGroup:
    """One row group of the log: where it lies, its rows, and the first and last time in it."""

    path: Place
    index: int
    rows: int
    first: datetime
    last: datetime


class EventLog:
    """A folder of events: `schema.json` and `events/<first day>_<last day>_<number>.parquet`.

    Files are sorted by time, so that row groups cover few days each; `position` keeps the order
    in which rows were appended. A file appears whole or not at all. One that holds what several
    appends brought is called after the numbers of the first and the last, `<first>-<last>`: where
    it lies, theirs are no part of the log (see `feature_store.compaction`).

    A log in object storage can be read, and not appended to.
    """

    def __init__(self, folder: Place, schema: Schema) -> None:
        self.folder = folder
        self.schema = schema

    @classmethod
    def create(cls, folder: Path, schema: Schema) -> EventLog:
        """Make an empty log. Raises DataError when the folder already holds one."""
        folder = Path(folder)
        if (folder / "schema.json").exists():
            raise DataError(f"{folder} already holds a log: open it, or choose another folder")
        (folder / "events").mkdir(parents=True, exist_ok=True)
        schema.save(folder / "schema.json")
        return cls(folder, schema)

    @classmethod
    def open(cls, folder: Place | str) -> EventLog:
        """Open an existing log, on the disk or by its URL. Raises DataError when there is none."""
        folder = place(folder)
        return cls(folder, Schema.load(folder / "schema.json"))

    @property
    def on_disk(self) -> Path:
        """Its folder, to write to. Raises DataError for a log in object storage."""
        return on_disk(self.folder)

    @property
    def files(self) -> list[Place]:
        """Every file of the log, in the order of their appends."""
        files: list[Place] = []
        last = -1
        for path in self.all_files:
            numbers = numbers_of(path)
            if numbers.first > last:  # else it is part of the file before
                files.append(path)
                last = numbers.last
        return files

    @property
    def all_files(self) -> list[Place]:
        """Those, and what they hold together already; each behind what holds it."""

        def place_of(path: Place) -> tuple[int, int]:
            numbers = numbers_of(path)
            return numbers.first, -numbers.last

        return sorted((self.folder / "events").glob("[!._]*.parquet"), key=place_of)

    @property
    def num_rows(self) -> int:
        """Events in the log, from footers alone."""
        return sum(open_parquet(path).metadata.num_rows for path in self.files)

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits over schema and content; equal for equal events in equal order."""
        return self.fingerprints[-1]

    @property
    def origin(self) -> str:
        """The fingerprint that it had after its first append: whatever becomes of it, the same."""
        digest = hashlib.sha256(self.schema.fingerprint.encode())
        digest.update(digests_of(self.files[0])[0])
        return digest.hexdigest()[:16]

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprints that the log had with its first 0, 1, 2, ... files."""
        digest = hashlib.sha256(self.schema.fingerprint.encode())
        prints = [digest.hexdigest()[:16]]
        for path in self.files:
            for of_append in digests_of(path):
                digest.update(of_append)
            prints.append(digest.hexdigest()[:16])
        return prints

    @property
    def fingerprints_of_appends(self) -> list[str]:
        """The fingerprints that the log had after 0, 1, 2, ... appends, wherever they lie now."""
        digest = hashlib.sha256(self.schema.fingerprint.encode())
        prints = [digest.hexdigest()[:16]]
        for of_append in (each for path in self.files for each in digests_of(path)):
            digest.update(of_append)
            prints.append(digest.hexdigest()[:16])
        return prints

    def check(self) -> None:
        """Read every page of it. Raises DataError naming the file in which a bit has changed, or
        that is of another schema."""
        columns = [*self.schema.events_schema().names, POSITION]
        for path in self.files:
            check_columns(path, open_parquet(path).schema_arrow, columns)
            check_parquet(path)

    def append(self, table: pa.Table) -> int:
        """Validate `table` and add it to the log; returns the number of rows.

        Raises:
            DataError: a value does not fit the schema; nothing is written.
        """
        checked = conform(table, self.schema.events_schema())
        if checked.problems:
            first = checked.problems[0]
            raise DataError(
                f"cannot append to {self.folder}: row {first.row}, column {first.column!r}: "
                f"{first.value!r} {first.reason} ({len(checked.problems)} such values)"
            )
        events = checked.table
        if not events.num_rows:
            return 0
        files, start = self.files, self.num_rows
        position = pa.array(np.arange(start, start + events.num_rows, dtype=np.int64))
        events = events.append_column(pa.field(POSITION, pa.int64(), nullable=False), position)
        number = numbers_of(files[-1]).last + 1 if files else 0
        self.write(events, Numbers(number, number))
        return events.num_rows

    def write(self, events: pa.Table, numbers: Numbers, digests: list[bytes] | None = None) -> None:
        """Write what the appends of these numbers brought, in any order, as one file; without
        their digests it is one append."""
        events = events.sort_by([(self.schema.time, "ascending"), (POSITION, "ascending")])
        span = pc.min_max(events[self.schema.time]).as_py()
        name = f"{span['min']:%Y-%m-%d}_{span['max']:%Y-%m-%d}_{numbers}.parquet"
        write_parquet(
            events,
            self.on_disk / "events" / name,
            metadata={_DIGEST: b" ".join(digests or [_digest(events)])},
            delta=(self.schema.time, POSITION),  # both nearly ascend
        )

    def row_groups(self, first: date | None = None, last: date | None = None) -> list[RowGroup]:
        """Row groups that may hold events of the days `first`..`last`; touches footers only."""
        groups = []
        for path in self.files:
            starts, ends = (date.fromisoformat(day) for day in path.stem.split("_")[:2])
            if (first and ends < first) or (last and starts > last):
                continue
            footer = open_parquet(path).metadata
            column = footer.schema.names.index(self.schema.time)
            for index in range(footer.num_row_groups):
                group = footer.row_group(index)
                stats = group.column(column).statistics
                if (first and stats.max.date() < first) or (last and stats.min.date() > last):
                    continue
                groups.append(RowGroup(path, index, group.num_rows, stats.min, stats.max))
        return groups

    def last_before(self, moment: datetime, event_types: Sequence[str] = ()) -> datetime | None:
        """When the last event before a moment was, of certain types or any; None where there is
        none. Little more is read than the row groups in which it lies."""
        newest: datetime | None = None
        time, kind = self.schema.time, self.schema.event_type
        before = (group for group in self.row_groups(last=moment.date()) if group.first < moment)
        for group in sorted(before, key=lambda group: group.last, reverse=True):
            if newest is not None and group.last <= newest:
                break
            names = [time, kind] if event_types and kind else [time]
            with open_parquet(group.path) as file:
                rows = file.read_row_group(group.index, names)
            if len(names) > 1:
                rows = rows.filter(pc.is_in(rows[kind], pa.array(event_types, pa.string())))
            times = rows[time].filter(pc.less(rows[time], pa.scalar(moment, rows[time].type)))
            own = pc.max(times).as_py()
            newest = own if newest is None or (own is not None and own > newest) else newest
        return newest


class Numbers(NamedTuple):
    """Which appends a file holds, by their numbers."""

    first: int
    last: int

    def __str__(self) -> str:
        return "-".join(f"{number:06d}" for number in sorted(set(self)))


def numbers_of(path: Place) -> Numbers:
    """The appends that a file of a log holds. Raises DataError for a file of another name."""
    if (named := _NAME.fullmatch(path.name)) is None:
        raise _strange(path)
    first, last = named.groups()
    return Numbers(int(first), int(last or first))


def digests_of(path: Place) -> list[bytes]:
    """The digests of the appends that a file of a log holds. Raises DataError for a file without
    them."""
    digests: bytes | None = (open_parquet(path).metadata.metadata or {}).get(_DIGEST)
    if digests is None:
        raise _strange(path)
    return digests.split(b" ")


def _strange(path: Place) -> DataError:
    return DataError(
        f"{path} is no file of this event log, which another program must have put there: move it "
        "away, or ingest the log anew"
    )


def _digest(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest().encode()
