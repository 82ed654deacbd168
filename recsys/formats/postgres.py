"""Items as a table of PostgreSQL with pgvector."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import ConfigError, DataError
from feature_store.progress import bar, stage
from recsys.formats.extras import needed
from recsys.formats.items import ID, VECTOR, items_table, told_of
from recsys.formats.source import GeneratorSource, Source
from recsys.formats.store import ItemStore, Loaded, check_store, measured, storable

WHAT = "a table of PostgreSQL"
_MARK = "recsys"  # in the comment of tables that are ours to replace
_LONGEST_NAME = 63  # bytes; PostgreSQL cuts longer ones, and takes two for one
_WIDEST_INDEXED = 2000  # numbers of a vector, of pgvector's HNSW
_ROWS = 10_000
_TYPES = {
    pa.int64(): "bigint",
    pa.float32(): "real",
    pa.float64(): "double precision",
    pa.string(): "text",
    pa.bool_(): "boolean",
}


class PostgresItems(ItemStore):
    """A table with columns `id` and `vector`, asked within a transaction; by its index, where it
    has one, or else exactly."""

    def __init__(self, connection: Any, table: str, id_type: str, *, indexed: bool = False) -> None:
        self._connection, self._table, self._id_type = connection, table, id_type
        self._indexed = indexed

    def nearest(self, vectors: np.ndarray, k: int, seen: list[Any]) -> tuple[list[Any], np.ndarray]:
        """One query, whatever the number of vectors."""
        from psycopg import sql

        if not len(vectors):
            return [], np.empty((0, 0), np.float32)
        self._choose_plan(k)
        each = sql.SQL(
            "(SELECT id, vector FROM {table} WHERE id <> ALL({seen}) "
            "ORDER BY vector <#> {vector} LIMIT {k})"
        )
        asked = [sql.SQL("{}::vector").format(sql.Literal(in_words(own))) for own in vectors]
        parts = {
            "table": sql.Identifier(self._table),
            "seen": sql.SQL("{}::" + self._id_type + "[]").format(sql.Literal(seen)),
            "k": sql.Literal(k),
        }
        listed = sql.SQL(" UNION ALL ").join(each.format(vector=own, **parts) for own in asked)
        scores = sql.SQL(", ").join(sql.SQL("-(vector <#> {})").format(own) for own in asked)
        query = sql.SQL("SELECT DISTINCT id, {scores} FROM ({listed}) AS listed")
        rows = self._connection.execute(query.format(scores=scores, listed=listed)).fetchall()
        table = np.array([row[1:] for row in rows], np.float32).reshape(len(rows), len(vectors))
        return [row[0] for row in rows], table.T

    def _choose_plan(self, k: int) -> None:
        run = self._connection.execute
        run(f"SET LOCAL enable_indexscan = {'on' if self._indexed else 'off'}")
        run(f"SET LOCAL enable_seqscan = {'off' if self._indexed else 'on'}")
        if self._indexed:  # without the seen ones there must still be k
            run("SET LOCAL hnsw.iterative_scan = strict_order")
            run(f"SET LOCAL hnsw.ef_search = {min(1000, max(40, 2 * k))}")


def in_words(vector: np.ndarray) -> str:
    """A vector as pgvector reads it, to the last bit."""
    return "[" + ",".join(map(repr, vector.tolist())) + "]"


def load_postgres(
    source: Source, url: str, table: str, *, hnsw: bool = False, least_recall: float = 0.95
) -> Loaded:
    """Put the items of a generator into a table, with an index if `hnsw`, in one transaction: the
    new table is filled aside, asked the golden requests and renamed; the old one stays as it is,
    and is read by whoever reads it, until then.

    Columns are `id`, `vector` and those of the catalogue. Grants on the old table are given anew.
    The table's comment says which space its vectors are of.

    Raises:
        ConfigError: the address cannot be read, a package or pgvector is missing.
        DataError: the server refuses, or another answer comes, or there is a table of that name
            that was not loaded by this program. Neither says what the password is.
    """
    psycopg = needed("psycopg", WHAT)
    generator = storable(source, WHAT)
    _check_name(table, "--table")
    if hnsw and generator.record.width > _WIDEST_INDEXED:
        raise ConfigError(
            f"--hnsw: pgvector indexes vectors of up to {_WIDEST_INDEXED} numbers, these have "
            f"{generator.record.width}: load them without an index"
        )
    items = items_table(generator)
    types = _types(items)
    with _connected(psycopg, url) as connection, connection.transaction():
        return _Loading(connection, generator, items, types, table).load(hnsw, least_recall)


class _Loading:
    """The steps of a load, within its transaction."""

    def __init__(
        self,
        connection: Any,
        source: GeneratorSource,
        items: pa.Table,
        types: dict[str, str],
        table: str,
    ) -> None:
        self.connection, self.source, self.items = connection, source, items
        self.types, self.table = types, table
        self.aside = f"_{_MARK}_{uuid.uuid4().hex[:12]}"

    def load(self, hnsw: bool, least_recall: float) -> Loaded:
        """All of them."""
        self._run("SELECT pg_advisory_xact_lock(hashtext({}))", self._literal(self.table))
        self._need_pgvector()
        old = self._old()
        self._fill()
        if hnsw:
            with stage("build the index"):
                self._run(
                    "CREATE INDEX {} ON {} USING hnsw (vector vector_ip_ops)",
                    *self._names(f"{self.aside}_hnsw", self.aside),
                )
        self._run("ANALYZE {}", *self._names(self.aside))
        exact = PostgresItems(self.connection, self.aside, self.types[ID])
        with stage("ask the golden requests"):
            check_store(self.source, exact, f"the table {self.table!r}")
            share = None
            if hnsw:
                indexed = PostgresItems(self.connection, self.aside, self.types[ID], indexed=True)
                share = measured(self.source, indexed, exact, least_recall)
        self._take_the_place_of(old, hnsw)
        return Loaded(self.items.num_rows, share)

    def _need_pgvector(self) -> None:
        psycopg = needed("psycopg", WHAT)
        there = "SELECT 1 FROM pg_extension WHERE extname = 'vector'"
        if self._run(there).fetchone() is not None:
            return
        try:
            with self.connection.transaction():
                self._run("CREATE EXTENSION vector")
        except psycopg.Error as error:
            raise ConfigError(
                "the database lacks pgvector, and this user may not add it "
                f"({_first_line(error)}): let its administrator run CREATE EXTENSION vector"
            ) from None

    def _old(self) -> int | None:
        """The table's number, where it is there. Raises DataError where it is not ours."""
        row = self._run(
            "SELECT c.oid, obj_description(c.oid, 'pg_class') FROM pg_class c "
            "WHERE c.relname = {} AND c.relnamespace = current_schema()::regnamespace",
            self._literal(self.table),
        ).fetchone()
        if row is None:
            return None
        try:
            ours = _MARK in json.loads(row[1] or "")
        except (ValueError, TypeError):
            ours = False
        if not ours:
            raise DataError(
                f"there is a table {self.table!r} that this program did not load, and it stays as "
                "it is: choose another name with --table"
            )
        return int(row[0])

    def _fill(self) -> None:
        from psycopg import sql

        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))  # type: ignore[arg-type]
            for name, kind in self.types.items()
        )
        self._run("CREATE TABLE {} ({}, PRIMARY KEY (id))", *self._names(self.aside), columns)
        told = json.dumps({_MARK: told_of(self.source)})
        self._run("COMMENT ON TABLE {} IS {}", *self._names(self.aside), self._literal(told))
        copied = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(self.aside))
        title, done = f"load {self.table}", 0
        with (
            bar(title, total_rows=self.items.num_rows) as told_rows,
            self.connection.cursor().copy(copied) as copy,
        ):
            for batch in self.items.to_batches(max_chunksize=_ROWS):
                for row in zip(*map(_values, batch.columns), strict=True):
                    copy.write_row(row)
                done += batch.num_rows
                told_rows(done, 0)

    def _take_the_place_of(self, old: int | None, hnsw: bool) -> None:
        from psycopg import sql

        if old is not None:
            grants = self._run(
                "SELECT privilege_type, grantee, pg_get_userbyid(grantee) "
                "FROM pg_class, aclexplode(relacl) WHERE oid = {}",
                self._literal(old),
            ).fetchall()
            for privilege, number, role in grants:
                to = sql.Identifier(role) if number else sql.SQL("PUBLIC")
                self._run("GRANT {} ON {} TO {}", sql.SQL(privilege), *self._names(self.aside), to)
            self._run("DROP TABLE {}", *self._names(self.table))
        self._run("ALTER TABLE {} RENAME TO {}", *self._names(self.aside, self.table))
        for ending in ("_pkey", *(["_hnsw"] if hnsw else [])):
            short = self.table.encode()[: _LONGEST_NAME - len(ending)].decode(errors="ignore")
            there = self._run(
                "SELECT 1 FROM pg_class WHERE relname = {} "
                "AND relnamespace = current_schema()::regnamespace",
                self._literal(short + ending),
            ).fetchone()
            if there is None:  # a name for people alone: any other will do
                self._run(
                    "ALTER INDEX {} RENAME TO {}",
                    *self._names(self.aside + ending, short + ending),
                )

    def _run(self, query: LiteralString, *parts: Any) -> Any:
        from psycopg import sql

        return self.connection.execute(sql.SQL(query).format(*parts))

    def _names(self, *names: str) -> list[Any]:
        from psycopg import sql

        return [sql.Identifier(name) for name in names]

    def _literal(self, value: Any) -> Any:
        from psycopg import sql

        return sql.Literal(value)


def _types(items: pa.Table) -> dict[str, str]:
    """The type of each column. Raises DataError naming one that cannot be stored."""
    types = {}
    for field in items.schema:
        _check_name(field.name, "the catalogue has a column that")
        inner = field.type.value_type if pa.types.is_list(field.type) else field.type
        if field.name == VECTOR:
            types[VECTOR] = f"vector({field.type.list_size})"
        elif inner in _TYPES:
            types[field.name] = _TYPES[inner] + ("[]" if inner is not field.type else "")
        else:
            raise DataError(
                f"the catalogue's column {field.name!r} holds {field.type}, which is not stored in "
                f"PostgreSQL; the types are {', '.join(map(str, _TYPES))} and lists of them"
            )
    return types


def _check_name(name: str, where: str) -> None:
    if not 0 < len(name.encode()) <= _LONGEST_NAME or "\0" in name:
        raise DataError(
            f"{where} is called {name[:80]!r}: names of PostgreSQL have 1 to {_LONGEST_NAME} bytes"
        )


def _values(column: pa.Array) -> list[Any]:
    """As COPY writes them."""
    if pa.types.is_fixed_size_list(column.type):
        # the shortest words that are the same float32 again, made of all numbers at once
        words = column.flatten().cast(pa.string())
        width = column.type.list_size
        offsets = pa.array(range(0, len(words) + 1, width), pa.int32())
        joined = pc.binary_join(pa.ListArray.from_arrays(offsets, words), ",")
        return [f"[{vector}]" for vector in joined.to_pylist()]
    return column.to_pylist()


@contextmanager
def _connected(psycopg: Any, url: str) -> Iterator[Any]:
    """A connection; whatever goes wrong is an error that says the server's words, and nothing of
    the password."""
    try:
        parts = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:  # its words hold parts of the address
        raise ConfigError(
            "--into is no address of PostgreSQL: postgresql://USER@HOST:PORT/DATABASE, and the "
            "password in PGPASSWORD or ~/.pgpass; a sign such as @ within a name is written %40"
        ) from None
    secrets = [str(parts[key]) for key in ("password", "sslpassword") if parts.get(key)]
    try:
        with psycopg.connect(url, application_name=_MARK) as connection:
            yield connection
    except psycopg.DataError as error:
        raise DataError(f"PostgreSQL refuses the items: {_without(secrets, error)}") from None
    except psycopg.Error as error:
        raise DataError(f"PostgreSQL: {_without(secrets, error)}") from None


def _without(secrets: list[str], error: Exception) -> str:
    text = _first_line(error)
    for secret in secrets:
        for form in (secret, quote(secret, safe=""), quote(secret)):
            text = text.replace(form, "***")
    return text


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
