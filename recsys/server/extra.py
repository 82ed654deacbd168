"""What is not installed, named by the extra that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from feature_store.errors import ConfigError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Imports that `recsys[extra]` brings. Raises ConfigError where one is absent."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("recsys", "feature_store"):
            raise
        raise ConfigError(
            f"{error.name} is not installed: `pip install 'recsys[{extra}]'` brings it"
        ) from None
