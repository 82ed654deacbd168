"""The files of a bundle: plain files inside its folder, checked against their checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from feature_store.errors import DataError, RecsysError


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Compare files with their checksums.

    Raises DataError naming the first that differs, is missing, or is no plain file in the folder.
    """
    for name, expected in files.items():
        if digest(plain_file(folder, name)) != expected:
            raise DataError(f"{folder}: {name} was altered after the export: export it again")


def copy_file(source: Path, target: Path) -> None:
    """Copy a file; where the disk can, both share their blocks until either is written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(source, "rb") as read, open(target, "wb") as written:
            left = os.fstat(read.fileno()).st_size
            while left and (copied := os.copy_file_range(read.fileno(), written.fileno(), left)):
                left -= copied
        if not left:
            return
    except (AttributeError, OSError):  # not of this system, or not between these disks
        pass
    shutil.copyfile(source, target)


def plain_file(folder: Path, name: str) -> Path:
    """The file of that name inside a folder, which a manifest from elsewhere may not lead out of.

    Raises DataError for a name that is absolute or leaves the folder, for links on the way, and
    where there is no plain file.
    """
    inner_path(folder, name)
    path = folder
    for part in PurePosixPath(name).parts:
        path /= part
        if path.is_symlink():
            raise DataError(
                f"{folder}: {name} is or goes through a link, {path.relative_to(folder)}: a bundle "
                "holds plain files; put the file itself there"
            )
    if not path.exists():
        raise DataError(f"{folder}: {name} is missing: export the bundle again")
    if not path.is_file():
        raise DataError(f"{folder}: {name} is not a plain file: export the bundle again")
    return path


def inner_path(folder: Path, name: str) -> Path:
    """Where a file of that name lies in a folder, or is to. Raises DataError for a name that is
    absolute or leaves the folder."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\\" in name or "\0" in name:
        raise DataError(f"{folder}: its manifest names {name!r}, which is no file inside it")
    return folder.joinpath(*parts)


@contextmanager
def opening(folder: Path) -> Iterator[None]:
    """Whatever files make of themselves that do not fit together, although each has its checksum,
    as one error that names the bundle."""
    try:
        yield
    except RecsysError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(
            f"{folder} cannot be opened: its files do not fit its manifest ({reason}): do not "
            "serve it, export it again"
        ) from error
