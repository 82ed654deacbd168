"""Ctrl-C and SIGTERM end a program as an error does: what was half written is removed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_STOPS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(BaseException):
    """Raised where the program is when a signal comes; no `except Exception` holds it up.

    `way` says how to go on: whoever knows more than this may change it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.what = _STOPS[signal.Signals(number)]
        self.way = (
            "what is whole stands, and the same command goes on from there; a training goes on "
            "with --resume"
        )
        self.status = 128 + number

    def __str__(self) -> str:
        return f"stopped by {self.what}: {self.way}"


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped within the block when a signal comes; a second one ends the program at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which alone may handle signals
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for other in _STOPS:
            signal.signal(other, signal.SIG_DFL)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
