"""The files of a data set, in a folder or in the zip archive its publisher offers."""

from __future__ import annotations

import gzip
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, cast

from feature_store.errors import DataError
from feature_store.storage import Place, Remote, digest_of, opened, size_of

_DIGEST_BELOW = 64 << 20  # bytes: larger inputs are told apart by size and time of change
_GROWTH, _GROWTH_FROM = 100, 64 << 20  # real data sets grow less than 20-fold
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError),
    *(NotImplementedError, RuntimeError, ValueError, MemoryError, struct.error),
)


class Files:
    """Files found by name in a folder, or in a zip archive at any depth.

    Raises:
        DataError: the path does not exist, or is neither a folder nor a readable zip.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path).expanduser()
        self._sizes: dict[str, int] = {}
        self._members: dict[str, str] = {}
        if self.path.is_dir():
            self._sizes = {p.name: p.stat().st_size for p in self.path.iterdir() if p.is_file()}
        elif not self.path.exists():
            raise DataError(f"{self.path} does not exist: give a folder or a zip archive")
        else:
            with _readable(str(self.path)), zipfile.ZipFile(self.path) as archive:
                for info in archive.infolist():
                    *above, name = info.filename.split("/")
                    aside = any(folder.startswith((".", "_")) for folder in above)
                    if name and not aside and name not in self._members:
                        self._members[name] = info.filename
                        self._sizes[name] = info.file_size

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    @property
    def names(self) -> list[str]:
        """Names of all files, sorted."""
        return sorted(self._sizes)

    def size(self, name: str) -> int:
        """Bytes of a file, uncompressed."""
        return self._sizes[name]

    def label(self, name: str) -> str:
        """The file as messages call it."""
        return str(self.path / name)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A stream over a file's bytes. Raises DataError, also later, when it proves unreadable."""
        if name not in self:
            have = ", ".join(self.names) or "nothing"
            raise DataError(f"{self.path} has no file {name!r}; it has: {have}")
        if name not in self._members:
            with open_binary(self.path / name) as stream:
                yield stream
            return
        label = self.label(name)
        with ExitStack() as stack:
            with _readable(label):
                archive = stack.enter_context(zipfile.ZipFile(self.path))
                info = archive.getinfo(self._members[name])
                member = stack.enter_context(archive.open(info))
                packed = min(info.compress_size, self.path.stat().st_size)
            yield cast(IO[bytes], _Checked(member, label, packed))

    def identity(self, names: list[str]) -> list[list[str | int]]:
        """What tells these files from others: their content, or size and time when large."""
        paths = {self.path} if self._members else {self.path / name for name in names}
        return file_identity(sorted(paths))


def file_identity(paths: Sequence[Place]) -> list[list[str | int]]:
    """Name, size and content digest of each file; above 64 MB together, the time of change."""
    stats = [(path, path.stat()) for path in paths if isinstance(path, Path)]
    # object storage keeps a tag of every version of an object
    remote: list[list[str | int]] = [
        [path.name, path.size, path.version] for path in paths if isinstance(path, Remote)
    ]
    small = sum(stat.st_size for _, stat in stats) < _DIGEST_BELOW
    local: list[list[str | int]] = [
        [path.name, stat.st_size, digest_of(path) if small else stat.st_mtime_ns]
        for path, stat in stats
    ]
    return remote + local


@contextmanager
def open_binary(path: Place) -> Iterator[IO[bytes]]:
    """A stream over a file's bytes, unpacked when it is named `.gz`.

    Raises DataError, also while reading, when the file cannot be read.
    """
    with ExitStack() as stack:
        with _readable(str(path)):
            stream: Any = stack.enter_context(opened(path))
            packed = None
            if path.suffix == ".gz":
                packed = size_of(path)
                stream = stack.enter_context(gzip.open(stream))
        yield cast(IO[bytes], _Checked(stream, str(path), packed))


class _Checked:
    """A stream whose errors are one line, and which does not grow without end.

    What was packed into `packed` bytes may be a hundred times as large, or 64 MiB. Nothing that
    people log is packed better; what is was made to fill memory and disk.
    """

    def __init__(self, stream: IO[bytes], label: str, packed: int | None) -> None:
        self._stream, self._label = stream, label
        self._left = None if packed is None else max(_GROWTH_FROM, _GROWTH * packed)

    def read(self, size: int = -1) -> bytes:
        """As of any stream. Raises DataError for broken archives, and for what grows too far."""
        if size < 0 and self._left is not None:
            size = self._left + 1
        with _readable(self._label):
            content = self._stream.read(size)
        if self._left is not None:
            self._left -= len(content)
            if self._left < 0:
                raise DataError(
                    f"{self._label} grows more than {_GROWTH}-fold when it is unpacked, as no log "
                    "does: if you trust it, unpack it yourself"
                )
        return content


@contextmanager
def _readable(label: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(
            f"{label} cannot be read ({why}): it may be truncated, fetch it again"
        ) from None
