"""The points at which a program changes what lies on the disk, counted; a fault at one of them.

A point is a file opened to be written, a folder made, a name that changes or goes, and an fsync, as
the interpreter sees them; files that native code opens by itself, such as the engine's, are none.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from errno import ENOSPC
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NAMES = ("os.mkdir", "os.rename", "os.symlink", "os.link", "os.truncate")
_GOES = ("os.remove", "os.rmdir")  # a full disk lets these pass

Fault = Callable[[int], None]
"""Called with the number of every point, from 1 on, before it happens."""


def kill_at(point: int, number: signal.Signals) -> Fault:
    """The process is sent a signal at a point."""

    def fault(now: int) -> None:
        if now == point:
            os.kill(os.getpid(), number)

    return fault


def full_from(point: int) -> Fault:
    """From a point on nothing more fits on the disk."""

    def fault(now: int) -> None:
        if now >= point:
            raise OSError(ENOSPC, os.strerror(ENOSPC))

    return fault


class Points:
    """Counts the points of this process below some folders from now on, in all threads; a process
    cannot get rid of it again."""

    def __init__(self, folders: list[Path], fault: Fault, *, removals: bool = True) -> None:
        self.count = 0
        self._below = tuple(f"{os.path.realpath(folder)}{os.sep}" for folder in folders)
        self._names = (*_NAMES, *_GOES) if removals else _NAMES
        self._fault = fault
        self._lock = threading.Lock()
        self._sync = os.fsync
        sys.addaudithook(self._hear)
        os.fsync = self._heard_sync  # type: ignore[assignment]

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITES:
                self._reach(path)
        elif event in self._names:
            # of a link the second name is what appears
            self._reach(arguments[1] if event in ("os.symlink", "os.link") else arguments[0])

    def _heard_sync(self, file: Any) -> None:
        handle = file if isinstance(file, int) else file.fileno()
        self._reach(f"/proc/self/fd/{handle}")
        self._sync(handle)

    def _reach(self, path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        at = (
            os.path.realpath(os.fsdecode(path))
            if "/fd/" in str(path)
            else os.path.abspath(os.fsdecode(path))
        )
        if at.startswith(self._below):
            with self._lock:
                self.count += 1
                now = self.count
            self._fault(now)
