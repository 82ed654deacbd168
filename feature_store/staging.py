"""A folder that appears whole or not at all, whatever kills the program that builds it."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feature_store.errors import DataError


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A hidden folder beside `folder`, renamed to it when the block ends without an error.

    A folder that stands there already is replaced. What killed programs left behind is removed.

    Raises:
        DataError: another program is building the same folder, or it cannot be written.
    """
    folder = Path(folder).absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _tidy(folder)
        staging = _aside(folder, "partial")
        staging.mkdir()
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror}") from None
    handle = os.open(staging, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)  # held until this process ends, however it ends
    try:
        yield staging
        _publish(staging, folder)
    except OSError as error:  # a full disk, for one
        raise DataError(f"{folder} cannot be written: {error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(handle)


def _aside(folder: Path, why: str) -> Path:
    return folder.with_name(f".{folder.name}.{why}-{uuid.uuid4().hex[:12]}")


def _leftovers(folder: Path, why: str) -> list[Path]:
    prefix = f".{folder.name}.{why}-"
    return sorted(path for path in folder.parent.iterdir() if path.name.startswith(prefix))


def _tidy(folder: Path) -> None:
    for path in _leftovers(folder, "partial"):
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{folder} is being built by another program: wait for it to end"
            ) from None
        else:
            shutil.rmtree(path)
        finally:
            os.close(handle)
    restore(folder)
    for path in _leftovers(folder, "replaced"):
        shutil.rmtree(path)


def restore(folder: Path) -> None:
    """Bring back a folder whose replacement was killed between its two renames."""
    if folder.parent.is_dir() and not folder.exists():
        for path in _leftovers(folder, "replaced")[:1]:
            os.rename(path, folder)


def _publish(staging: Path, folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()):
        old = _aside(folder, "replaced")
        os.rename(folder, old)
        os.rename(staging, folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(staging, folder)
    handle = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
