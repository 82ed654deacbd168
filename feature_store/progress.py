"""Progress of long work: bars on a terminal, elsewhere a line now and then with what is left."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

PATIENCE_S = 10.0
"""Seconds of silence after which something is said of work that shows nothing."""
EVERY_S = 30.0
"""Seconds from one line to the next."""

Say = Callable[[str], object]


class Progress(Protocol):
    """Told how far the work is: rows and bytes of input done since its beginning."""

    def __call__(self, rows: int, read_bytes: int) -> None: ...


def say(text: str) -> None:
    """Print a line on stderr; of several processes the first alone."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


def in_words(seconds: float) -> str:
    """A duration as people say it: 40 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    for large, small, size in (("h", "min", 3600), ("min", "s", 60)):
        if whole >= size:
            rest = whole % size // (size // 60)
            return f"{whole // size} {large}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


@contextmanager
def stage(what: str, about: float | None = None, tell: Say = say) -> Iterator[None]:
    """Say what is being done while the block runs, where it lasts.

    Of a block that is known to take `about` so many seconds it is said before it begins; of any
    other once there was silence for a while; and of all of them again and again.
    """
    known = "" if about is None else f" of about {in_words(about)}"
    long = about is not None and about >= PATIENCE_S
    if long and about is not None:
        tell(f"{what}: about {in_words(about)}")
    started, over = time.monotonic(), threading.Event()

    def watch() -> None:
        wait = EVERY_S if long else PATIENCE_S
        while not over.wait(wait):
            tell(f"{what}: {in_words(time.monotonic() - started)}{known} so far")
            wait = EVERY_S

    watcher = threading.Thread(target=watch, name="stage", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


class Ticks:
    """Says every so often how far work has come that is counted, and how long the rest will take.

    The first call says nothing: from there on the speed is measured.
    """

    def __init__(self, what: str, tell: Say = say) -> None:
        self.what, self.tell = what, tell
        self._first: tuple[float, float] | None = None
        self._told = 0.0

    def __call__(self, done: float, total: float | None, more: str = "") -> None:
        """So much of it is done; `more` is said besides."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._told = (done, now), now
        if now - self._told < EVERY_S:
            return
        self._told = now
        began, since = self._first
        text = f"{self.what}: {done:,.0f}"
        if total:
            left = (now - since) / max(done - began, 1e-9) * (total - done)
            text = f"{self.what}: {done / total:.0%}, {in_words(left)} left"
        self.tell(f"{text}{more}")


@contextmanager
def bar(
    title: str, *, total_bytes: int | None = None, total_rows: int | None = None
) -> Iterator[Progress]:
    """A bar on stderr while the block runs; lines where stderr is no terminal."""
    if not sys.stderr.isatty():
        ticks, total = Ticks(title), total_bytes or total_rows
        yield lambda rows, read_bytes: ticks(
            read_bytes if total_bytes else rows, total, f" ({rows:,} rows)" if total else " rows"
        )
        return
    from rich import progress as rich  # not needed, and not loaded, without a terminal
    from rich.console import Console

    columns = (
        rich.TextColumn("{task.description}", markup=False),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.TextColumn("{task.fields[rows]:,} rows"),
        rich.TextColumn("{task.fields[rate]:,.0f} rows/s"),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=total_bytes or total_rows, rows=0, rate=0.0)

        def update(rows: int, read_bytes: int) -> None:
            elapsed = shown.tasks[0].elapsed or 0.0
            rate = rows / elapsed if elapsed else 0.0
            done = read_bytes if total_bytes else rows
            shown.update(task, completed=done, rows=rows, rate=rate)

        yield update
