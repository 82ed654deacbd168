"""Where programs write for people: data is text and never markup, and whole wherever it goes."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table

from pipelines.escaping import shown

_WORD = 12  # characters
_WIDE = 1 << 16  # columns where no terminal ends: nothing is cut or wrapped


def printer(*, stderr: bool = False) -> Console:
    """A console of stdout or stderr that shows brackets, colons and all else as they are, and what
    would steer a terminal escaped."""
    stream = sys.stderr if stderr else sys.stdout
    return _Printer(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        width=None if stream.isatty() else _WIDE,
    )


class _Printer(Console):
    """Terminals obey signs that nobody sees; those of data are shown instead."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """What is drawn, with all that is not printable escaped, but ends of lines."""
        for text, style, control in super().render(renderable, options):
            seen = text if control else "\n".join(map(shown, text.split("\n")))
            yield Segment(seen, style, control)


def say(text: str, *, stderr: bool = False) -> None:
    """Lines that hold somebody's data, on stdout or stderr."""
    print("\n".join(map(shown, text.split("\n"))), file=sys.stderr if stderr else sys.stdout)


def print_whole(table: Table, console: Console | None = None) -> None:
    """Print a table: where a terminal is narrower than its numbers, lines run over its edge, and
    no column is lost."""
    console = console or printer()
    width = console.width
    console.width = max(width, _least_width(table, console))
    console.print(table)
    console.width = width


def _least_width(table: Table, console: Console) -> int:
    """Columns of a terminal that hold the cells which may not be folded, and a word of others."""
    width = 2
    for column in table.columns:
        measures = [console.measure(cell) for cell in (column.header, *column.cells)]
        wide = [m.maximum if column.no_wrap else min(m.minimum, _WORD) for m in measures]
        width += max(wide) + 3  # with the blanks around it
    return width
