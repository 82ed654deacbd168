"""Bundles in use: links are followed once, and what somebody reads is not removed meanwhile."""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from pathlib import Path

from recsys.serving.manifest import MANIFEST

_TRIES, _PAUSE = 100, 0.01  # seconds; a version is put away within a few milliseconds


class Held:
    """A hold on a bundle's folder: while it lives, in any program, the folder is not removed."""

    def __init__(self, handle: int) -> None:
        weakref.finalize(self, os.close, handle)


def pinned(folder: Path) -> Path:
    """The folder that a link leads to now; another folder is itself."""
    return Path(os.path.realpath(folder)) if folder.is_symlink() else folder


def hold(folder: Path) -> tuple[Path, Held | None]:
    """The folder that a path leads to, and a hold on it: whatever is published meanwhile, all files
    are read of one and the same bundle.

    The hold is a shared lock of the manifest. There is none where that cannot be read, of which
    its reader tells, or where the disk knows no locks.
    """
    for _ in range(_TRIES):
        at = pinned(folder)
        try:
            handle = os.open(at / MANIFEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            if pinned(folder) == at:
                return at, None
            continue  # put away since the link was followed
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if _same(handle, at / MANIFEST):
                return at, Held(handle)
        except BlockingIOError:  # it is being put away
            time.sleep(_PAUSE)
        except OSError:
            os.close(handle)
            return at, None
        os.close(handle)
    return pinned(folder), None


def put_away(folder: Path, aside: Path) -> bool:
    """Rename a bundle's folder, if nobody holds it; returns whether that was so."""
    handle = None
    try:
        if (folder / MANIFEST).exists():  # without one it is of no use to anybody
            handle = os.open(folder / MANIFEST, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(folder, aside)
    except OSError:  # held, or on a disk that does not know
        return False
    finally:
        if handle is not None:
            os.close(handle)
    return True


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except OSError:
        return False
