"""Progress of long work: a bar with throughput on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Told how far the work is: rows and bytes of input done since its beginning."""

    def __call__(self, rows: int, read_bytes: int) -> None: ...


@contextmanager
def bar(
    title: str, *, total_bytes: int | None = None, total_rows: int | None = None
) -> Iterator[Progress]:
    """A bar on stderr while the block runs; does nothing when stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda rows, read_bytes: None
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
