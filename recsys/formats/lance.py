"""Items as a table of LanceDB."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from feature_store.errors import DataError, RecsysError
from feature_store.progress import stage
from recsys.formats.extras import needed
from recsys.formats.items import ID, VECTOR, items_table, told_of
from recsys.formats.source import Source
from recsys.formats.store import ItemStore, Loaded, check_store, measured, storable

WHAT = "a table of LanceDB"
_MARK = b"recsys"  # in the metadata of tables that are ours to replace
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")


class LanceItems(ItemStore):
    """A table with columns `id` and `vector`; asked by its index, where it has one, or else
    exactly."""

    def __init__(self, table: Any, *, indexed: bool = False) -> None:
        self._table, self._indexed = table, indexed

    def nearest(self, vectors: np.ndarray, k: int, seen: list[Any]) -> tuple[list[Any], np.ndarray]:
        """A query for each of the vectors."""
        items: dict[Any, list[float]] = {}
        for vector in vectors:
            query = self._table.search(vector, vector_column_name=VECTOR).distance_type("dot")
            query = query.ef(max(64, 2 * k)) if self._indexed else query.bypass_vector_index()
            if seen:
                query = query.where(f"id NOT IN ({', '.join(map(_literal, seen))})", prefilter=True)
            rows = query.select([ID, VECTOR, "_distance"]).limit(k).to_arrow()
            items |= dict(zip(rows[ID].to_pylist(), rows[VECTOR].to_pylist(), strict=True))
        listed = np.array(list(items.values()), np.float32).reshape(len(items), vectors.shape[1])
        return list(items), vectors @ listed.T


def load_lancedb(
    source: Source, path: str, name: str, *, hnsw: bool = False, least_recall: float = 0.95
) -> Loaded:
    """Put the items of a generator into a table of the database at `path`, a folder, with an index
    if `hnsw`: they are written aside, asked the golden requests, and then become the next version
    of the table, which readers see at once or not at all.

    Columns are `id`, `vector` and those of the catalogue; the metadata `recsys` says which space
    the vectors are of. The index is built after the table has its new version: until then it is
    searched exactly.

    Raises:
        ConfigError: a package is missing.
        DataError: LanceDB refuses, or another answer comes, or there is a table of that name that
            was not loaded by this program.
    """
    os.environ.setdefault("LANCE_LOG", "error")  # it warns of every table that is new
    lancedb = needed("lancedb", WHAT)
    generator = storable(source, WHAT)
    if not _NAME.fullmatch(name):
        raise DataError(
            f"--table is called {name[:80]!r}: names of LanceDB hold letters, digits and _ - ."
        )
    told = {_MARK: json.dumps(told_of(generator)).encode()}
    items = items_table(generator).replace_schema_metadata(told)
    aside = f"_recsys_{name}"
    with _telling(path):
        database = lancedb.connect(path)
        _refuse_others(database, name)
        try:
            with stage("write the items and ask the golden requests"):
                table = database.create_table(aside, items, mode="overwrite")
                check_store(generator, LanceItems(table), f"the table {name!r}")
            if hnsw:
                _indexed(table)
                measured(
                    generator, LanceItems(table, indexed=True), LanceItems(table), least_recall
                )
            table = database.create_table(name, items, mode="overwrite")
        finally:
            database.drop_table(aside, ignore_missing=True)
        if not hnsw:
            return Loaded(items.num_rows, None)
        _indexed(table)
        share = measured(generator, LanceItems(table, indexed=True), LanceItems(table), 0.0)
        return Loaded(items.num_rows, share)


def _indexed(table: Any) -> None:
    with stage("build the index"):
        table.create_index(
            metric="dot", vector_column_name=VECTOR, index_type="IVF_HNSW_SQ", num_partitions=1
        )


def _refuse_others(database: Any, name: str) -> None:
    """Raises DataError for a table that is not ours."""
    try:
        metadata = database.open_table(name).schema.metadata or {}
    except (ValueError, FileNotFoundError) as error:
        if "not found" not in str(error):
            raise
        return
    if _MARK not in metadata:
        raise DataError(
            f"there is a table {name!r} that this program did not load, and it stays as it is: "
            "choose another name with --table"
        )


def _literal(id: Any) -> str:
    return "'" + id.replace("'", "''") + "'" if isinstance(id, str) else str(id)


@contextmanager
def _telling(path: str) -> Iterator[None]:
    """Whatever LanceDB raises, which has many kinds of errors, as one that names the database."""
    try:
        yield
    except RecsysError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"LanceDB at {path}: {text}") from None
