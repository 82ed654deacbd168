"""What a person sees of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable

from rich.progress import track

from pipelines.progress import console
from recsys.data.batch import Batch
from recsys.data.reader import Reader


class EvaluationProgress:
    """A bar for each retriever that is measured, on a terminal."""

    def batches(self, what: str, reader: Reader) -> Iterable[Batch]:
        """The reader's batches under a bar."""
        return track(
            reader, what, len(reader), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip

    def note(self, text: str) -> None:
        """Print it."""
        console.print(text, soft_wrap=True)
