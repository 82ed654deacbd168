"""What a source is: options, a schema, and chunks of raw rows that remember their lines."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from feature_store.conform import python_values
from feature_store.options import Options
from feature_store.schema import Schema


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be stored: its 1-based line, and why. `raw` holds all of it as text."""

    line: int
    column: str  # empty when the row as a whole is at fault
    reason: str
    raw: str
    value: str = ""


@dataclass(frozen=True)
class RawChunk:
    """Raw rows of one file, strings or typed, and the rows already lost in parsing it.

    `lines` [rows] are 1-based line numbers (row numbers where a file has no lines); `read_bytes`
    is how much of the input this chunk took, for progress, 0 where that is unknown.
    """

    table: pa.Table
    file: str
    lines: np.ndarray
    bad: list[BadRow] = field(default_factory=list)
    read_bytes: int = 0

    @property
    def num_rows(self) -> int:
        """Rows of the input that this chunk speaks for, the bad ones included."""
        return self.table.num_rows + len(self.bad)

    def with_table(self, table: pa.Table) -> RawChunk:
        """The same rows with other columns."""
        return replace(self, table=table)

    def reject(self, wrong: np.ndarray, column: str, reason: str) -> RawChunk:
        """Set aside the rows under the mask `wrong` [rows]: their `column` holds no such value."""
        if not wrong.any():
            return self
        rows = np.flatnonzero(wrong)
        raws = raw_rows(self.table, rows)
        values = python_values(self.table.column(column).take(pa.array(rows)))
        bad = [
            BadRow(int(self.lines[row]), column, reason, raw, "" if value is None else str(value))
            for row, raw, value in zip(rows, raws, values, strict=True)
        ]
        keep = np.flatnonzero(~wrong)
        table = self.table.take(pa.array(keep))
        return replace(self, table=table, lines=self.lines[keep], bad=self.bad + bad)


def raw_rows(table: pa.Table, rows: np.ndarray) -> list[str]:
    """The given rows as JSON texts, so that a row set aside loses nothing."""
    columns = [python_values(column) for column in table.take(pa.array(rows)).columns]
    names = table.column_names
    records = (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))
    return [json.dumps(record, default=str, ensure_ascii=False) for record in records]


class Source(Options, ABC):
    """Options of one kind of input, and how to read it.

    A subclass adds `source: Literal["its name"]` and its options as fields, so that it can be
    one arm of the union under `[data]` in a configuration.
    """

    @property
    @abstractmethod
    def schema(self) -> Schema:  # type: ignore[override]  # pydantic's deprecated alias
        """What the rows mean. Raises DataError or ConfigError when the input cannot be read."""

    @abstractmethod
    def read_events(self) -> Iterator[RawChunk]:
        """The events, in chunks of bounded size. Raises DataError for input beyond repair."""

    def read_items(self) -> Iterator[RawChunk]:
        """What is known of items; nothing by default."""
        yield from ()

    def read_users(self) -> Iterator[RawChunk]:
        """What is known of users; nothing by default."""
        yield from ()

    @abstractmethod
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when the input or an option does; cheap to compute."""

    @property
    def renamed(self) -> dict[str, str]:
        """Columns of the input whose features are called otherwise; none by default."""
        return {}

    @property
    def total_bytes(self) -> int | None:
        """How many bytes `read_events` will read, where that is known."""
        return None

    @property
    def total_rows(self) -> int | None:
        """About how many events there will be, where that is known."""
        return None

    def save_truth(self, folder: Path) -> None:
        """Write what only a generator can know into `folder`; real data has nothing to write."""

    def _digest(self, *parts: Any, without: frozenset[str] = frozenset()) -> str:
        """Sixteen hex digits over the options, the schema and `parts`."""
        options = self.model_dump(mode="json", exclude=set(without))
        text = json.dumps([options, self.schema.fingerprint, parts], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
