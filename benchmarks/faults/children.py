"""Work in a process of its own, forked from this one, which has imported all and started nothing.

Importing takes seconds, forking milliseconds. No thread may run here when a child is forked: this
process may only import, copy files and compare them.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_PAUSE = 0.002  # seconds between two looks at a child
PATIENCE = 900.0  # seconds that a child may take, also where others take the core


class Ended(NamedTuple):
    """How a child ended: its status, negative the signal that ended it; seconds it took."""

    status: int
    seconds: float
    told: str


def in_child(
    work: Callable[[], None],
    folder: Path,
    temporary: Path,
    *,
    kill_after: float | None = None,
    number: signal.Signals = signal.SIGKILL,
) -> Ended:
    """Do some work in `folder`, with `temporary` for temporary files, and wait for it to end; a
    signal may be sent after so many seconds. What it prints is told.

    Raises TimeoutError where it does not end.
    """
    temporary.mkdir(exist_ok=True)
    said = temporary.with_suffix(".txt")
    started = time.perf_counter()
    if (child := os.fork()) == 0:
        _do(work, folder, temporary, said)  # never returns
    status = None
    while status is None:
        time.sleep(_PAUSE)
        ended, state = os.waitpid(child, os.WNOHANG)
        spent = time.perf_counter() - started
        if ended:
            status = os.waitstatus_to_exitcode(state)
        elif kill_after is not None and spent >= kill_after:
            os.kill(child, number)
            kill_after = None
        elif spent > PATIENCE:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"a child did not end: {said.read_text()}")
    return Ended(status, time.perf_counter() - started, said.read_text(errors="replace"))


def _do(work: Callable[[], None], folder: Path, temporary: Path, said: Path) -> None:
    status = 1
    atexit._clear()  # what this process is to clear away is not the child's
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    try:
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        os.chdir(folder)
        work()
        status = 0
    except SystemExit as leave:
        status = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        if isinstance(leave.code, str):
            print(leave.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # as an interpreter that ends
        atexit._run_exitfuncs()
        weakref.finalize._exitfunc()  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
