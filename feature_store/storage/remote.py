"""Remote: an object, or what lies below a prefix, with those verbs of a path that readers use."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

from feature_store.storage.calls import tried

_BLOCK = 8 << 20  # bytes that a stream asks for at once; it holds one block more, read ahead
_S3 = {  # attempts are counted in one place: `calls`
    "config_kwargs": {
        "retries": {"mode": "standard", "total_max_attempts": 1},
        "connect_timeout": 10,
        "read_timeout": 30,
        "max_pool_connections": 64,
    },
    "use_listings_cache": False,
}


class Remote:
    """A place such as `s3://bucket/log`; what is no object itself is the folder of those below.

    What was listed is kept: whoever reads it then asks for nothing but its bytes.
    Verbs raise FileNotFoundError, and DataError where the storage cannot be reached.
    """

    def __init__(self, protocol: str, key: str, facts: dict[str, Any] | None = None) -> None:
        self.protocol = protocol
        self.key = key.strip("/")
        self._facts = facts

    @property
    def filesystem(self) -> Any:
        """The fsspec filesystem of the protocol, one a process."""
        return _filesystem(self.protocol)

    def call(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """What a verb of the filesystem answers for this object, tried as `calls` says."""
        return tried(
            str(self),
            lambda: getattr(self.filesystem, verb)(self.key, *arguments, **options),
        )

    def __str__(self) -> str:
        return f"{self.protocol}://{self.key}"

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __lt__(self, other: Remote) -> bool:
        return str(self) < str(other)

    def __truediv__(self, name: str) -> Remote:
        return Remote(self.protocol, f"{self.key}/{name}")

    @property
    def name(self) -> str:
        """The last part of the key."""
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """The last suffix of the name."""
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> Remote:
        """The prefix that it lies below."""
        return Remote(self.protocol, self.key.rpartition("/")[0])

    def below(self, other: object) -> tuple[str, ...]:
        """The parts of its key behind those of `other`, a prefix of it."""
        assert isinstance(other, Remote)
        return PurePosixPath(self.key).relative_to(other.key).parts

    @property
    def size(self) -> int:
        """Bytes of the object."""
        return int(self.facts["size"])

    @property
    def version(self) -> str:
        """What changes with the object: the storage's tag, or the time of change."""
        names = ("ETag", "etag", "LastModified", "mtime", "created")
        return str(next((self.facts[name] for name in names if self.facts.get(name)), ""))

    @property
    def facts(self) -> dict[str, Any]:
        """What the storage tells of the object."""
        if self._facts is None:
            self._facts = dict(self.call("info"))
        return self._facts

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self._facts is not None or bool(self.call("isfile"))

    def is_dir(self) -> bool:
        """Whether objects lie below it."""
        return bool(self.call("isdir"))

    def exists(self) -> bool:
        """Whether there is such an object, or one below it."""
        return self._facts is not None or bool(self.call("exists"))

    def rglob(self, pattern: str) -> Iterator[Remote]:
        """The objects at any depth below it whose names fit a pattern, sorted."""
        try:
            objects: dict[str, Any] = self.call("find", detail=True)
        except FileNotFoundError:
            return
        for key in sorted(objects):
            at = Remote(self.protocol, key, objects[key])
            if at.key != self.key and fnmatch.fnmatchcase(at.name, pattern):
                yield at

    def glob(self, pattern: str) -> Iterator[Remote]:
        """The objects right below it whose names fit a pattern, sorted."""
        return (at for at in self.rglob(pattern) if at.parent == self)

    def read_bytes(self, start: int | None = None, end: int | None = None) -> bytes:
        """The object's bytes, or those from `start` up to `end`."""
        return bytes(self.call("cat_file", start=start, end=end))

    def read_text(self) -> str:
        """The object as text."""
        return self.read_bytes().decode()

    def read_ranges(self, ranges: list[tuple[int, int]]) -> list[bytes]:
        """The bytes of several ranges, fetched at once; those that fail are asked for again."""
        parts: dict[tuple[int, int], bytes] = {}

        def fetch() -> None:
            left = [bounds for bounds in ranges if bounds not in parts]
            starts, ends = [start for start, _ in left], [end for _, end in left]
            answers = self.filesystem.cat_ranges([self.key] * len(left), starts, ends)
            failures = []
            for bounds, answer in zip(left, answers, strict=True):
                if isinstance(answer, BaseException):
                    failures.append(answer)
                else:
                    parts[bounds] = bytes(answer)
            if failures:
                raise failures[0]

        tried(str(self), fetch)
        return [parts[bounds] for bounds in ranges]

    def write_bytes(self, contents: bytes) -> None:
        """Make the object, or overwrite it, in one step."""
        self.call("pipe_file", contents)

    def upload(self, file: Path) -> None:
        """Make the object of a file, in one step."""
        tried(str(self), lambda: self.filesystem.put_file(str(file), self.key))

    def download(self, file: Path) -> None:
        """Write the object's bytes to a file."""
        self.call("get_file", str(file))

    def unlink(self) -> None:
        """Remove the object; it may be gone already."""
        with suppress(FileNotFoundError):
            self.call("rm_file")

    def open(self) -> IO[bytes]:
        """A stream over its bytes, which reads ahead."""
        stream: IO[bytes] = self.call("open", "rb", block_size=_BLOCK, cache_type="readahead")
        return stream


@functools.cache
def _filesystem(protocol: str) -> Any:
    import fsspec

    return fsspec.filesystem(protocol, **(_S3 if protocol == "s3" else {}))
