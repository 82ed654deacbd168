"""Rows that cannot be stored: an error by default, a Parquet file of them on request."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.errors import DataError
from feature_store.sources.base import BadRow

_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("line", pa.int64()),
        pa.field("column", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("raw", pa.string()),
    ]
)


class Quarantine:
    """Receives bad rows: the first is an error unless they are to be set aside in `path`."""

    def __init__(self, path: Path, *, set_aside: bool) -> None:
        self.reasons: Counter[str] = Counter()
        self.first: str = ""
        self._path = path
        self._set_aside = set_aside
        self._writer: pq.ParquetWriter | None = None

    @property
    def rows(self) -> int:
        """Rows set aside so far."""
        return self.reasons.total()

    def add(self, file: str, bad: list[BadRow], *, more: int = 0) -> None:
        """Set rows of one file aside. `more` says how many such rows there are besides `bad`.

        Raises:
            DataError: rows are not to be set aside; it names the first of them.
        """
        if not bad:
            return
        self.first = self.first or _describe(file, bad[0])
        if not self._set_aside:
            count = len(bad) + more
            raise DataError(
                f"{self.first} ({count:,} bad row{'s' if count > 1 else ''} so far); "
                "run again with --quarantine to set such rows aside"
            )
        self.reasons.update(row.reason for row in bad)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, _SCHEMA, compression="zstd")
        columns = [
            [file] * len(bad),
            [row.line for row in bad],
            [row.column for row in bad],
            [row.reason for row in bad],
            [row.raw for row in bad],
        ]
        self._writer.write_table(pa.table(columns, schema=_SCHEMA))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


def _describe(file: str, row: BadRow) -> str:
    place = f"{file}:{row.line}"
    if not row.column:
        return f"{place}: {row.reason}: {_short(row.raw)}"
    value = f"{_short(row.value)} " if row.value or row.reason.startswith("is not") else ""
    return f"{place}, column {row.column!r}: {value}{row.reason}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
