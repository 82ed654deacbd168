"""A bundle's items -> the table of another engine, proved by the golden requests."""

from __future__ import annotations

from feature_store.errors import ConfigError
from recsys.formats.postgres import Loaded, load_postgres
from recsys.formats.source import source_of
from recsys.serving.bundle import Bundle

POSTGRES = ("postgresql:", "postgres:")


def load(
    bundle: Bundle,
    into: str,
    table: str,
    part: str | None = None,
    *,
    hnsw: bool = False,
    least_recall: float = 0.95,
) -> Loaded:
    """Put the items of a generator into PostgreSQL (`into` is its URL).

    Raises:
        ConfigError: `into` is no address that is known, or a package is missing.
        DataError: the part has no item vectors, the engine refuses, or answers otherwise.
    """
    if not into.startswith(POSTGRES):
        raise ConfigError("--into is an address such as postgresql://USER@HOST:PORT/DATABASE")
    source = source_of(bundle, part)
    return load_postgres(source, into, table, hnsw=hnsw, least_recall=least_recall)
