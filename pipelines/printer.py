"""Where programs write for people: data is text and never markup, and whole wherever it goes."""

from __future__ import annotations

import sys

from rich.console import Console

_WIDE = 1 << 16  # columns where no terminal ends: nothing is cut or wrapped


def printer(*, stderr: bool = False) -> Console:
    """A console of stdout or stderr that shows brackets, colons and all else as they are."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        width=None if stream.isatty() else _WIDE,
    )


def shown(value: object) -> str:
    """A value of somebody's data on a line of a terminal: what is not printable is escaped."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in str(value)
    )
