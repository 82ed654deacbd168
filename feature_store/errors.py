"""The errors a user can mend: each message names the thing, the place and the way out."""

from __future__ import annotations

import shlex


def command(*words: object) -> str:
    """A command line that can be pasted, whatever blanks its paths and ids hold."""
    return shlex.join(map(str, words))


class RecsysError(Exception):
    """Bad input or configuration. Programs print it in one line and exit with status 1."""

    def __str__(self) -> str:
        """The message in one line, whatever the names that it holds."""
        return " ".join(super().__str__().splitlines())


class DataError(RecsysError):
    """Data that does not fit its schema: names file or column, row and reason."""


class ConfigError(RecsysError):
    """A configuration that cannot run: names the key and the allowed values."""
