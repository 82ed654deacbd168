"""Parquet in object storage: of a row group no bytes are fetched but those of the columns asked."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.storage.remote import Remote

_TAIL = 64 << 10  # bytes: the footers of most files
_GAP = 256 << 10  # bytes between ranges that cost less to fetch than another request


class Ranges(io.RawIOBase):
    """A file of which some ranges are held; any other read is a request of its own."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._at = 0
        self.parts: list[tuple[int, bytes]] = []

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Hold these ranges, in place of those held before."""
        joined = _joined(ranges)
        starts = [start for start, _ in joined]
        self.parts = list(
            zip(starts, self._remote.read_ranges(joined) if joined else [], strict=True)
        )

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._remote.size}
        self._at = base[whence] + offset
        return self._at

    def tell(self) -> int:
        """The place of the next read."""
        return self._at

    def size(self) -> int:
        """Bytes of the file."""
        return self._remote.size

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, all that are left for a negative size."""
        left = max(0, self._remote.size - self._at)
        end = self._at + (left if size is None or size < 0 else min(size, left))
        start, self._at = self._at, end
        if start == end:
            return b""
        for first, part in self.parts:
            if first <= start and end <= first + len(part):
                return part[start - first : end - first]
        return self._remote.read_bytes(start, end)


class RemoteParquet(pq.ParquetFile):
    """A Parquet file whose row groups are fetched as they are asked for, each at once; iterating
    over it fetches the next one meanwhile. One thread at a time may read it."""

    def __init__(self, remote: Remote, footer: pq.FileMetaData | None = None) -> None:
        self._remote, self._ranges = remote, Ranges(remote)
        if footer is None:
            self._ranges.fetch([(max(0, remote.size - _TAIL), remote.size)])
        super().__init__(self._ranges, metadata=footer, page_checksum_verification=True)

    def read_row_group(self, i: int, columns: Any = None, **options: Any) -> pa.Table:
        """As of any Parquet file."""
        self._ranges.fetch(self._bounds([i], columns))
        return super().read_row_group(i, columns=columns, **options)

    def read(self, columns: Any = None, **options: Any) -> pa.Table:
        """As of any Parquet file."""
        self._ranges.fetch(self._bounds(range(self.num_row_groups), columns))
        return super().read(columns=columns, **options)

    def iter_batches(
        self, batch_size: int = 1 << 16, *, columns: Any = None, **options: Any
    ) -> Iterator[pa.RecordBatch]:
        """As of any Parquet file, but that no batch reaches over the end of a row group."""

        def load(group: int) -> pa.Table:
            file = RemoteParquet(self._remote, self.metadata)
            return file.read_row_group(group, columns=columns)

        groups = range(self.num_row_groups)
        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(load, 0) if groups else None
            for group in groups:
                assert waiting is not None
                table = waiting.result()
                if group + 1 in groups:
                    waiting = ahead.submit(load, group + 1)
                yield from table.to_batches(max_chunksize=batch_size)

    def _bounds(self, groups: Sequence[int], columns: Sequence[str] | None) -> list[Any]:
        """Where the chunks of columns lie in the file."""
        schema = self.metadata.schema
        paths = [schema.column(place).path for place in range(len(schema))]
        wanted = [
            place
            for place, path in enumerate(paths)
            if columns is None or any(path == c or path.startswith(f"{c}.") for c in columns)
        ]
        bounds = []
        for group in map(self.metadata.row_group, groups):
            for chunk in map(group.column, wanted):
                start = chunk.data_page_offset
                if chunk.dictionary_page_offset:  # which comes first
                    start = min(start, chunk.dictionary_page_offset)
                bounds.append((start, start + chunk.total_compressed_size))
        return bounds


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in their order, neighbours as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1] + _GAP:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
