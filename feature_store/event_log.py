"""EventLog: append-only Parquet, one file an append, found by day through names and footers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.columns import POSITION
from feature_store.conform import conform
from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.parquet import check_parquet
from feature_store.schema import Schema

_DIGEST = b"recsys.sha256"


@dataclass(frozen=True)
class RowGroup:
    """One row group of the log: where it lies, its rows, and the first and last time in it."""

    path: Path
    index: int
    rows: int
    first: datetime
    last: datetime


class EventLog:
    """A folder of events: `schema.json` and `events/<first day>_<last day>_<number>.parquet`.

    Files are sorted by time, so that row groups cover few days each; `position` keeps the order
    in which rows were appended. A file appears whole or not at all.
    """

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.folder = Path(folder)
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
    def open(cls, folder: Path) -> EventLog:
        """Open an existing log. Raises DataError when there is none."""
        return cls(folder, Schema.load(Path(folder) / "schema.json"))

    @property
    def files(self) -> list[Path]:
        """Every file of the log, in the order of their appends."""
        return sorted((self.folder / "events").glob("[!._]*.parquet"), key=_number)

    @property
    def num_rows(self) -> int:
        """Events in the log, from footers alone."""
        return sum(pq.read_metadata(path).num_rows for path in self.files)

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits over schema and content; equal for equal events in equal order."""
        return self.fingerprints[-1]

    @property
    def fingerprints(self) -> list[str]:
        """The fingerprints that the log had with its first 0, 1, 2, ... files."""
        digest = hashlib.sha256(self.schema.fingerprint.encode())
        prints = [digest.hexdigest()[:16]]
        for path in self.files:
            digest.update(pq.read_metadata(path).metadata[_DIGEST])
            prints.append(digest.hexdigest()[:16])
        return prints

    def check(self) -> None:
        """Read every page of it. Raises DataError naming the file in which a bit has changed."""
        for path in self.files:
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
        start = self.num_rows
        position = pa.array(np.arange(start, start + events.num_rows, dtype=np.int64))
        events = events.append_column(pa.field(POSITION, pa.int64(), nullable=False), position)
        events = events.sort_by([(self.schema.time, "ascending"), (POSITION, "ascending")])
        span = pc.min_max(events[self.schema.time]).as_py()
        name = f"{span['min']:%Y-%m-%d}_{span['max']:%Y-%m-%d}_{len(self.files):06d}.parquet"
        write_parquet(events, self.folder / "events" / name, metadata={_DIGEST: _digest(events)})
        return events.num_rows

    def row_groups(self, first: date | None = None, last: date | None = None) -> list[RowGroup]:
        """Row groups that may hold events of the days `first`..`last`; touches footers only."""
        groups = []
        for path in self.files:
            starts, ends = (date.fromisoformat(day) for day in path.stem.split("_")[:2])
            if (first and ends < first) or (last and starts > last):
                continue
            footer = pq.read_metadata(path)
            column = footer.schema.names.index(self.schema.time)
            for index in range(footer.num_row_groups):
                group = footer.row_group(index)
                stats = group.column(column).statistics
                if (first and stats.max.date() < first) or (last and stats.min.date() > last):
                    continue
                groups.append(RowGroup(path, index, group.num_rows, stats.min, stats.max))
        return groups


def _number(path: Path) -> int:
    return int(path.stem.split("_")[2])


def _digest(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest().encode()
