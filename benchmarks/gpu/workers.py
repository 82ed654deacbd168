"""Processes that do steps, so that what kills one of them or hangs stops nothing else."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections import deque
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from benchmarks.gpu.step import FAILED, TRACEBACK, Outcome, Settings, Step

_TAIL = 2000  # characters of what a dead process printed


def _work(connection: Connection, log: Path, settings: Settings, imports: tuple[str, ...]) -> None:
    """Import what takes long, then do one step after another."""
    os.setsid()  # what it starts ends with it
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for module in imports:
        importlib.import_module(module)
    while True:
        step: Step = connection.recv()
        connection.send(step.do(settings))
        sys.stdout.flush()


class _Worker:
    def __init__(self, log: Path, settings: Settings, imports: tuple[str, ...]) -> None:
        context = get_context("spawn")
        self.log = log
        self.used = False
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_work, args=(theirs, log, settings, imports), daemon=True
        )
        self.process.start()
        theirs.close()

    def do(self, step: Step, seconds: float) -> Outcome:
        self.used = True
        try:
            self.connection.send(step)
            if self.connection.poll(seconds):
                return self.connection.recv()  # type: ignore[no-any-return]
        except (EOFError, OSError):
            self.process.join(5)
            printed = self.log.read_text(errors="replace")[-_TAIL:].splitlines()
            return {FAILED: f"the process ended: {self.process.exitcode}", TRACEBACK: printed}
        return {FAILED: f"no answer within {seconds:.0f} s"}

    def end(self) -> None:
        """End it, and all that it has started."""
        if self.process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()


class Apart:
    """Does steps in processes of their own. `spare` of them have imported everything already.

    A process goes on with the next step as long as none fails in it; a step that fails where others
    were done before is tried once more in a fresh process.
    """

    def __init__(self, settings: Settings, imports: tuple[str, ...] = (), spare: int = 1) -> None:
        self.settings = settings
        self.imports = imports
        self._number = 0
        self._current: _Worker | None = None
        self._spare = deque(self._start() for _ in range(spare))

    def do(self, step: Step, seconds: float) -> Outcome:
        """The outcome of a step that may take so long."""
        worker = self._current or self._next()
        used = worker.used
        outcome = worker.do(step, seconds)
        if FAILED not in outcome:
            self._current = worker
            return outcome
        worker.end()
        self._current = None
        return self.do(step, seconds) if used else outcome

    def close(self) -> None:
        """End all processes."""
        for worker in (*self._spare, *([self._current] if self._current else [])):
            worker.end()

    def _next(self) -> _Worker:
        self._spare.append(self._start())
        return self._spare.popleft()

    def _start(self) -> _Worker:
        self._number += 1
        log = self.settings.folder / f"worker-{self._number}.log"
        return _Worker(log, self.settings, self.imports)


class Here:
    """Does steps in this process, which no step then may kill."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def do(self, step: Step, seconds: float) -> Outcome:
        """The outcome of a step, however long it takes."""
        return step.do(self.settings)

    def close(self) -> None:
        """Nothing to end."""
