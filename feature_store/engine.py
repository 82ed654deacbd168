"""The embedded engine behind Ibis expressions: the same expressions run on another one."""

from __future__ import annotations

import tempfile

import ibis
from ibis.backends.duckdb import Backend

from feature_store.errors import ConfigError

ENGINES = ("duckdb",)


def connect(name: str = "duckdb", *, memory_gb: float = 4.0, threads: int | None = None) -> Backend:
    """A connection that spills to disk past `memory_gb` gibibytes.

    Raises ConfigError for an engine that is not known.
    """
    if name not in ENGINES:
        raise ConfigError(f"engine {name!r} is not known; known: {', '.join(ENGINES)}")
    settings = {"memory_limit": f"{memory_gb}GiB", "temp_directory": tempfile.gettempdir()}
    if threads is not None:
        settings["threads"] = str(threads)
    return ibis.duckdb.connect(**settings)
