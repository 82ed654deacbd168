"""One program at a time writes into the folder of a run."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from feature_store.errors import ConfigError, DataError, RecsysError
from feature_store.trees import json_tree
from recsys.distributed import Group
from recsys.runs.folder import RunFolder


@contextmanager
def locked(files: RunFolder) -> Iterator[None]:
    """Hold the run's folder, made where it is not there, until the block or the process ends,
    however it ends.

    The lock file says who holds it; it stays behind, and means nothing by itself.

    Raises:
        ConfigError: another program holds it; says which.
        DataError: the folder cannot be written.
    """
    folder = files.lock.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(files.lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder} is being written by {_holder(files)}: wait for it to end, or choose "
                "another name with name=..."
            ) from None
        except OSError as error:
            raise DataError(f"{folder} cannot be held: {error.strerror}") from None
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(_self()).encode())
        yield
    finally:
        os.close(handle)


@contextmanager
def locked_together(files: RunFolder, group: Group) -> Iterator[None]:
    """`locked` on several processes: the leading one holds the folder, and all raise where it
    cannot."""
    with ExitStack() as held:
        problem: RecsysError | None = None
        if group.leads:
            try:
                held.enter_context(locked(files))
            except RecsysError as error:
                problem = error
        if problems := [error for error in group.gather(problem) if error is not None]:
            raise problems[0]
        yield


def _self() -> dict[str, str | int]:
    return {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "command": shlex.join(sys.argv),
    }


def _holder(files: RunFolder) -> str:
    try:
        holder = json_tree(files.lock.read_text())
        return f"process {holder['process']} on {holder['host']} ({holder['command']})"
    except (OSError, ValueError, KeyError):  # it has only just begun
        return "another program"
