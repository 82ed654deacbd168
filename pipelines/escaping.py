"""Somebody's data on a line of a terminal, which obeys signs that nobody sees."""

from __future__ import annotations


def shown(value: object) -> str:
    """A value in one line, whatever it holds: what is not printable is escaped."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in str(value)
    )
