"""Steps that go well, and wrong in every way; imports nothing that takes long."""

from __future__ import annotations

import os
import time

from benchmarks.gpu.step import Outcome, Settings


def fine(settings: Settings) -> Outcome:
    """The process that it was done in."""
    return {"process": os.getpid()}


def wrong(settings: Settings) -> Outcome:
    """An error."""
    raise ValueError("wrong")


def dead(settings: Settings) -> Outcome:
    """The end of the process, as of a fault in native code."""
    os.abort()


def slow(settings: Settings) -> Outcome:
    """Longer than it may take."""
    time.sleep(60)
    return {}
