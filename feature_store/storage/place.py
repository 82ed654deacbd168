"""Which place a text means."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from feature_store.errors import ConfigError, DataError
from feature_store.storage.remote import Remote

Place = Path | Remote

# `Path("s3://bucket")` has lost a slash, and a letter before `:` is a drive
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/{1,3}(?=[^/])")
_BLOCK = 4 << 20  # bytes read at once
_SAME = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}


def place(text: str | Place) -> Place:
    """The place that a path or a URL means.

    Raises ConfigError for a URL that holds credentials: it would be recorded with the run.
    """
    if isinstance(text, Remote):
        return text
    url = _URL.match(str(text))
    if url is None or url[1].lower() == "file":
        return Path(str(text)[url.end() - 1 :] if url else text)
    protocol, key = url[1].lower(), str(text)[url.end() :]
    if urlsplit(f"{protocol}://{key}").username is not None or re.search(r"\?.*=", key):
        raise ConfigError(
            f"a {protocol} URL holds credentials or options, which runs would record: leave them "
            "out; credentials are taken from the environment or the machine's role"
        )
    return Remote(_SAME.get(protocol, protocol), key)


def on_disk(at: Place) -> Path:
    """The same place. Raises DataError for one in object storage."""
    if isinstance(at, Remote):
        raise DataError(
            f"{at} is in object storage, from which it can be read alone: `recsys pull` it, and "
            "push it again once it is changed"
        )
    return at


def size_of(file: Place) -> int:
    """Bytes of a file."""
    return file.size if isinstance(file, Remote) else file.stat().st_size


def digest_of(file: Place) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with opened(file) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def copy_to(file: Place, path: Path) -> None:
    """Copy a file to a place of the disk."""
    with opened(file) as stream, open(path, "wb") as copy:
        shutil.copyfileobj(stream, copy, _BLOCK)


def opened(file: Place) -> IO[bytes]:
    """A stream over a file's bytes."""
    return file.open() if isinstance(file, Remote) else open(file, "rb")


def files_below(folder: Place, pattern: str = "*") -> list[Place]:
    """The files at any depth below a folder whose names fit a pattern, sorted."""
    if isinstance(folder, Remote):
        return list(folder.rglob(pattern))
    return [file for file in sorted(folder.rglob(pattern)) if file.is_file()]


def parts_below(file: Place, folder: Place) -> tuple[str, ...]:
    """The parts of a file's path behind those of a folder that it lies below."""
    if isinstance(file, Remote):
        return file.below(folder)
    assert isinstance(folder, Path)
    return file.relative_to(folder).parts
