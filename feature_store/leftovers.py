"""What programs build out of sight, and what killed ones have left of it.

Whoever builds something holds it locked until the process ends, however it ends: what nobody holds
was left behind, and may be removed by whoever comes next.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SCRATCH = "recsys-scratch-"


def hold(make: Callable[[], Path]) -> tuple[Path, int]:
    """Make a file or folder, and hold it: the path, and the handle that holds it until it is
    closed. What another program took for left behind meanwhile is made again."""
    while True:
        path = make()
        with suppress(FileNotFoundError):
            handle = os.open(path, os.O_RDONLY)
            with suppress(OSError):  # a disk that knows no locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _same(handle, path):
                return path, handle
            os.close(handle)


def remove_left(path: Path) -> bool:
    """Remove a file, folder or link that nobody holds; False where somebody does, or where that
    cannot be known."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
        return True
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _same(handle, path):
            return True
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        return True
    except OSError:  # held, or not ours
        return False
    finally:
        os.close(handle)


def remove_tree(folder: Path) -> None:
    """Remove a folder with all that can be removed of it; a signal that comes meanwhile ends the
    program only when that is done."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class Scratch:
    """A folder for temporary files, below TMPDIR; `close` removes it, and so does the end of the
    program. What killed programs left is removed as well.

    Raises OSError where there is no room for it.
    """

    def __init__(self, kind: str) -> None:
        sweep_scratch()
        prefix = f"{_SCRATCH}{kind}-"
        self.path, self._handle = hold(lambda: Path(tempfile.mkdtemp(prefix=prefix)))
        atexit.register(self.close)

    def close(self) -> None:
        """Remove the folder with all that it holds."""
        if self._handle >= 0:
            remove_tree(self.path)
            os.close(self._handle)
            self._handle = -1
            atexit.unregister(self.close)


def sweep_scratch() -> None:
    """Remove the temporary folders of killed programs."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            if left.is_dir() and left.stat().st_uid == os.getuid():
                remove_left(left)


@contextmanager
def scratch(kind: str) -> Iterator[Path]:
    """`Scratch` for a block."""
    folder = Scratch(kind)
    try:
        yield folder.path
    finally:
        folder.close()


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
