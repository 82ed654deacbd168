"""Several processes that answer at one port, and one that looks after them.

Only one thread of a process runs Python at a time; so many processes use so many processors. Each
opens the bundle for itself and watches for another one. The system gives every connection to one of
them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

from prometheus_client.multiprocess import mark_process_dead

from feature_store.errors import ConfigError, RecsysError
from recsys.server.isolating import log_fault
from recsys.server.logs import log, log_to_stderr, warn
from recsys.server.together import FIGURES

_SETTLED = 5.0  # seconds: a worker that ends earlier would end again
_PR_SET_PDEATHSIG = 1
_STOPPED = (0, -signal.SIGTERM, -signal.SIGINT)
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def listening(host: str, port: int, count: int) -> list[socket.socket]:
    """A socket for each of `count` processes, all bound to one port; 0 is any that is free.

    Raises ConfigError where it is taken, or this system cannot share one.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sockets: list[socket.socket] = []
    for _ in range(count):
        bound = socket.socket(family)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind((host, port))
        except (AttributeError, OSError) as error:
            raise ConfigError(f"cannot listen at {host}, port {port}: {error}") from None
        port = bound.getsockname()[1]
        bound.set_inheritable(True)
        sockets.append(bound)
    return sockets


def tell_all() -> None:
    """Ask whoever looks after this process that all take the bundle that lies there now."""
    os.kill(os.getppid(), signal.SIGHUP)


def work_together(work: Callable[[socket.socket], None], sockets: list[socket.socket]) -> int:
    """Do the work of each socket in a process of its own, until SIGTERM or Ctrl-C; SIGHUP goes to
    all. One that is killed is begun anew, and what was asked at its socket meanwhile waits for it.

    To be called before there are threads. Returns a status: 1 where one could not begin.
    """
    log_to_stderr()
    crew = _Crew(work, sockets)
    before = {number: signal.signal(number, crew.forward) for number in _FORWARDED}
    try:
        return crew.look_after()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Crew:
    """The processes, by their numbers: at which socket each works, and since when."""

    def __init__(self, work: Callable[[socket.socket], None], sockets: list[socket.socket]) -> None:
        self._work, self._stopping, self._status = work, False, 0
        self._at: dict[int, tuple[socket.socket, float]] = {}
        for each in sockets:
            self._begin(each)

    def look_after(self) -> int:
        """Until all have ended."""
        while self._at:
            process, ended = os.wait()
            if process not in self._at:
                continue
            if FIGURES in os.environ:
                mark_process_dead(process)  # what it had waiting waits no more
            at, since = self._at.pop(process)
            status = os.waitstatus_to_exitcode(ended)
            if self._stopping:
                self._status = self._status or int(status not in _STOPPED)
            elif time.monotonic() - since < _SETTLED:
                warn("worker ended at its start", status=status)
                self._status = 1
                self.forward(signal.SIGTERM, None)
            else:
                warn("worker ended", status=status)
                self._begin(at)
        return self._status

    def forward(self, number: int, frame: FrameType | None) -> None:
        """Give a signal to all."""
        self._stopping |= number != signal.SIGHUP
        for process in list(self._at):
            os.kill(process, number)

    def _begin(self, at: socket.socket) -> None:
        process = os.fork()
        if process:
            self._at[process] = at, time.monotonic()
            log("worker begins", process=process)
            return
        status = 1
        try:
            for number in _FORWARDED:
                signal.signal(number, signal.SIG_DFL)
            _end_with_parent()
            self._work(at)
            status = 0
        except RecsysError as error:
            warn("worker cannot begin", reason=str(error))
        except Exception as error:
            log_fault(error)
        finally:
            os._exit(status)


def _end_with_parent() -> None:
    """Where the system can: if whoever looks after this process is killed, it stops, too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
