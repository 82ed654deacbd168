"""Parquet written in a stream, in row groups of equal size."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.durable import parquet_writer


class RowGroups:
    """Row groups of exactly `size` rows, but for the last, in a file or in a folder of files.

    Tables of any length may be written; less than a row group and one table are in memory. With
    `file_rows`, a multiple of `size`, `path` is a folder of files of that many rows, numbered in
    their order.
    """

    def __init__(self, path: Path, size: int, file_rows: int | None = None) -> None:
        self.rows = 0
        self._path, self._size, self._file_rows = path, size, file_rows
        self._writer: pq.ParquetWriter | None = None
        self._written = 0  # rows in files
        self._held: list[pa.Table] = []
        if file_rows is not None:
            path.mkdir()

    def write(self, rows: pa.Table) -> None:
        """Add rows behind those written before; the first table says what columns there are."""
        self.rows += rows.num_rows
        self._held.append(rows)
        held = self.rows - self._written
        if held >= self._size:
            self._flush(held - held % self._size)

    def _flush(self, count: int) -> None:
        """Move the first `count` rows that are held into files."""
        held = pa.concat_tables(self._held)
        for start in range(0, count, self._size):
            if self._writer is None or (self._file_rows and self._written % self._file_rows == 0):
                self._open(held.schema)
            group = held.slice(start, min(self._size, count - start))
            assert self._writer is not None
            self._writer.write_table(group, row_group_size=self._size)
            self._written += group.num_rows
        self._held = [held.slice(count)]

    def _open(self, schema: pa.Schema) -> None:
        if self._writer is not None:
            self._writer.close()
        path = self._path
        if self._file_rows is not None:
            path = path / f"{self._written // self._file_rows:05d}.parquet"
        self._writer = parquet_writer(path, schema)

    def __enter__(self) -> RowGroups:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self._held:
            self._flush(self.rows - self._written)
            if self._writer is None:  # no rows: the columns alone
                self._open(self._held[0].schema)
        if self._writer is not None:
            self._writer.close()
