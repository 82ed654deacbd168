"""The exposures of a server on disk: a journal that nothing is lost from, and Parquet behind it.

What is written goes to the open segment's journal, a hidden file, and is on the disk before `write`
returns. A segment that is full or old enough becomes a Parquet file of its own name, whole or not
at all, and only then is its journal removed. A killed program leaves its journal: whoever opens the
folder next makes it the Parquet file that it would have become, and removes it where that is there
already. So each write comes to lie in exactly one file, whenever the program is killed; one that
was under way then, and had not returned, is in the log whole or not at all.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from feature_store.durable import cannot_write, write_parquet
from feature_store.errors import DataError
from recsys.policy.exposures import rows_of

_FRAME = struct.Struct("<II")  # bytes, and their CRC-32
_JOURNAL = ".journal"


class ExposureLog:
    """Appends rows to a folder of Parquet files; see the module. Threads may share it, and so may
    programs the folder.

    Args:
        folder: is made where it is not there.
        columns: `recsys.policy.exposures.exposure_schema`.
        rows: of a segment, at least, when it is published.
        seconds: of a segment's age, at which the next write publishes it.
        sync_s: 0: a write is on the disk when it returns. Above it the disk is only waited for so
            often: if the machine loses power (not if the program is killed), the writes of the last
            `sync_s` seconds may be lost.
    """

    def __init__(
        self,
        folder: Path,
        columns: pa.Schema,
        *,
        rows: int = 200_000,
        seconds: float = 3600.0,
        sync_s: float = 0.0,
    ) -> None:
        self.folder = Path(folder)
        self.columns = columns
        self._rows, self._seconds, self._sync_s = rows, seconds, sync_s
        self._lock = threading.Lock()
        self._segment: _Segment | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from None
        for journal in sorted(self.folder.glob(f".*{_JOURNAL}")):
            _recover(journal)

    def write(self, table: pa.Table) -> None:
        """Append rows: all of them or, where an error is raised, none.

        Raises DataError for rows that the columns do not hold, and a disk that takes no more.
        """
        if table.schema != self.columns:
            table = rows_of(table, self.columns)
        if not table.num_rows:
            return
        with self._lock:
            if self._segment is not None and self._segment.age > self._seconds:
                self._publish()
            if self._segment is None:
                self._segment = _Segment(self.folder, self.columns, self._sync_s)
            self._segment.write(table)
            if self._segment.rows >= self._rows:
                self._publish()

    def rotate(self) -> None:
        """Publish what was written so far."""
        with self._lock:
            self._publish()

    def close(self) -> None:
        """Publish what was written; further writes begin another segment."""
        self.rotate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _publish(self) -> None:
        if self._segment is not None:
            self._segment.sync()
            _to_parquet(self._segment.journal)
            self._segment.close()
            self._segment = None


class _Segment:
    """A journal that this program holds locked."""

    def __init__(self, folder: Path, columns: pa.Schema, sync_s: float) -> None:
        self._sync_s, self._bytes, self.rows = sync_s, 0, 0
        self._begun = self._synced = time.monotonic()
        try:
            self.journal, self._file = _begin(folder)
        except OSError as error:
            raise cannot_write(folder, error) from None
        self._append(_frame(columns.serialize().to_pybytes()))
        _sync_folder(folder)

    @property
    def age(self) -> float:
        """Seconds since it was begun."""
        return time.monotonic() - self._begun

    def write(self, table: pa.Table) -> None:
        """Append the rows as a frame."""
        (batch,) = table.combine_chunks().to_batches()
        self._append(_frame(batch.serialize().to_pybytes()))
        self.rows += table.num_rows

    def sync(self) -> None:
        """Wait until all of it is on the disk."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise cannot_write(self.journal, error) from None
        self._synced = time.monotonic()

    def close(self) -> None:
        """Let go of the journal."""
        os.close(self._file)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
            if self._sync_s == 0 or time.monotonic() - self._synced >= self._sync_s:
                self.sync()
        except (OSError, DataError) as error:
            os.ftruncate(self._file, self._bytes)  # nothing may stand behind half a frame
            if isinstance(error, DataError):
                raise
            raise cannot_write(self.journal, error) from None
        self._bytes += len(data)


def _begin(folder: Path) -> tuple[Path, int]:
    """A new journal and its descriptor, which holds it locked and appends to it."""
    while True:
        begun = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
        journal = folder / f".{begun}_{uuid.uuid4().hex[:12]}{_JOURNAL}"
        file = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        fcntl.flock(file, fcntl.LOCK_EX)
        if journal.exists():  # nobody took it for one left behind before it was locked
            return journal, file
        os.close(file)


def _frame(data: bytes) -> bytes:
    return _FRAME.pack(len(data), zlib.crc32(data)) + data


def _frames(journal: Path) -> Iterator[bytes]:
    """The whole frames of a journal; the one that a kill cut off, and what follows, is none."""
    with open(journal, "rb") as file:
        whole = os.fstat(file.fileno()).st_size
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            size, checksum = _FRAME.unpack(head)
            if size > whole - file.tell():  # memory of so many bytes is not asked for
                return
            data = file.read(size)
            if zlib.crc32(data) != checksum or not size:
                return
            yield data


def _recover(journal: Path) -> None:
    """Publish the journal of a program that is gone; one that is held is another's work."""
    try:
        file = os.open(journal, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if journal.exists():  # nobody else has done it meanwhile
            _to_parquet(journal)
    except BlockingIOError:
        return
    finally:
        os.close(file)


def _to_parquet(journal: Path) -> None:
    """The journal's rows as the Parquet file of its name; then the journal goes.

    Raises DataError where it holds none, and where the file cannot be written.
    """
    published = journal.with_name(journal.name.removeprefix(".").removesuffix(_JOURNAL))
    published = published.with_name(f"{published.name}.parquet")
    try:
        if not published.exists():
            frames = _frames(journal)
            if (head := next(frames, None)) is not None:
                schema = pa.ipc.read_schema(pa.py_buffer(head))
                batches = [pa.ipc.read_record_batch(pa.py_buffer(each), schema) for each in frames]
                if batches:
                    table = pa.Table.from_batches(batches, schema).combine_chunks()
                    write_parquet(table, published)
        journal.unlink()
    except pa.ArrowInvalid as error:
        why = " ".join(str(error).split())
        raise DataError(f"{journal} holds no exposures ({why}): move it away") from None
    except OSError as error:
        raise cannot_write(published, error) from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
