"""What a person sees of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from feature_store.progress import Ticks
from pipelines.progress import console
from recsys.data.batch import Batch
from recsys.data.reader import Reader


class EvaluationProgress:
    """A bar for each retriever that is measured, on a terminal; elsewhere lines, if it lasts."""

    def batches(self, what: str, reader: Reader) -> Iterable[Batch]:
        """The reader's batches under a bar."""
        if not console.is_terminal:
            return _ticking(what, reader)
        return self._watched(what, reader)

    def _watched(self, what: str, reader: Reader) -> Iterator[Batch]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            yield from bar.track(reader, len(reader), description=what)

    def note(self, text: str) -> None:
        """Print it."""
        console.print(text, soft_wrap=True)


def _ticking(what: str, reader: Reader) -> Iterator[Batch]:
    ticks = Ticks(what)
    ticks(0, len(reader))
    for number, batch in enumerate(reader, 1):
        yield batch
        ticks(number, len(reader))
