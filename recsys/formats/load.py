"""A bundle's items -> the table of another engine, proved by the golden requests."""

from __future__ import annotations

from feature_store.errors import ConfigError
from recsys.formats.lance import load_lancedb
from recsys.formats.postgres import load_postgres
from recsys.formats.source import source_of
from recsys.formats.store import Loaded
from recsys.serving.bundle import Bundle

POSTGRES, LANCEDB = ("postgresql:", "postgres:"), "lancedb:"


def load(
    bundle: Bundle,
    into: str,
    table: str,
    part: str | None = None,
    *,
    hnsw: bool = False,
    least_recall: float = 0.95,
) -> Loaded:
    """Put the items of a generator into PostgreSQL or LanceDB: `into` is the URL of the one, or
    `lancedb:` and the folder of the other.

    Raises:
        ConfigError: `into` is no address that is known, or a package is missing.
        DataError: the part has no item vectors, the engine refuses, or answers otherwise.
    """
    if into.startswith(POSTGRES):
        return load_postgres(
            source_of(bundle, part), into, table, hnsw=hnsw, least_recall=least_recall
        )
    path = into.removeprefix(LANCEDB)
    if path == into or not path:
        raise ConfigError(
            "--into is postgresql://USER@HOST:PORT/DATABASE or lancedb:PATH, a folder"
        )
    return load_lancedb(source_of(bundle, part), path, table, hnsw=hnsw, least_recall=least_recall)
