"""Users in a file of SQLite: the default, without any server.

Its journal is written ahead (WAL): readers never wait, several processes write in turn, and
whatever kills one of them, an append is there whole or not at all. Not for network file systems.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from feature_store.errors import DataError
from recsys.online.record import NEVER
from recsys.online.rules import Rules
from recsys.online.store import Change, Id, Mark, UserStore

_PATIENCE_S = 60.0  # for other processes that write
_IDS = 500  # asked for at a time
_TABLES = """
CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS users
    (id {kind} PRIMARY KEY, newest INTEGER NOT NULL, record BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS features (id {kind} PRIMARY KEY, row TEXT NOT NULL);
"""


class SqliteStore(UserStore):
    """Users in one file; `rules` make it where there is none.

    Raises DataError where there is no store and no rules, where the file is none of SQLite's, and
    where it was made by other rules and has to be `alike`.
    """

    def __init__(
        self,
        path: Path,
        rules: Rules | None = None,
        *,
        alike: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock)
        self.path = Path(path)
        self.shown = f"sqlite:///{path}"
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        if rules is None and not self.path.exists():
            raise DataError(
                f"{self.shown} is not there: make it by `recsys online sync RUN {self.shown}`"
            )
        if rules is not None:
            with self._mendable():
                kind = "TEXT" if rules.log[rules.log.user].dtype == "string" else "INTEGER"
                self._connection.executescript(_TABLES.format(kind=kind))
        self._settle(rules, alike)

    def close(self) -> None:
        """Close the connections of all threads."""
        while self._open:
            with suppress(sqlite3.Error):
                self._open.pop().close()
        self._local = threading.local()

    def users(self) -> pa.Array:
        """The ids of all known users, sorted."""
        since = self._since()
        with self._mendable():
            rows = self._connection.execute(
                "SELECT id FROM users WHERE newest >= ? AND newest > ? ORDER BY id", (since, NEVER)
            ).fetchall()
        return pa.array([row[0] for row in rows], self.schema.field(self.rules.log.user).type)

    def remembered(self, name: str) -> str | None:
        """What was remembered by that name."""
        with self._mendable():
            row = self._connection.execute(
                "SELECT value FROM marks WHERE name = ?", (name,)
            ).fetchone()
        return None if row is None else str(row[0])

    def remember(self, mark: Mark, *, once: bool = False) -> None:
        way = "IGNORE" if once else "REPLACE"
        with self._mendable():
            self._connection.execute(f"INSERT OR {way} INTO marks VALUES (?, ?)", mark)

    def _change(self, ids: Sequence[Id], change: Change) -> int:
        with self._together():
            changed, added = change(self._records(ids))
            rows = [(ids[place], moment, record) for place, (record, moment) in changed.items()]
            self._connection.executemany("INSERT OR REPLACE INTO users VALUES (?, ?, ?)", rows)
        return added

    def _read(self, ids: Sequence[Id]) -> tuple[list[bytes | None], list[str | None]]:
        with self._mendable():
            features = self._column("SELECT id, row FROM features", ids)
            return self._records(ids), [features.get(key) for key in ids]

    def _write_features(self, ids: Sequence[Id], rows: Sequence[str]) -> None:
        with self._mendable():
            pairs = zip(ids, rows, strict=True)
            self._connection.executemany("INSERT OR REPLACE INTO features VALUES (?, ?)", pairs)

    def _forget(self, ids: Sequence[Id]) -> int:
        with self._together():
            connection = self._connection
            rows = [(key,) for key in ids]
            before = connection.total_changes
            connection.executemany("DELETE FROM users WHERE id = ?", rows)
            gone = connection.total_changes - before
            connection.executemany("DELETE FROM features WHERE id = ?", rows)
        return gone

    def _forget_before(self, micros: int) -> None:
        with self._mendable():
            self._connection.execute("DELETE FROM users WHERE newest < ?", (micros,))

    def _records(self, ids: Sequence[Id]) -> list[bytes | None]:
        records = self._column("SELECT id, record FROM users", ids)
        return [records.get(key) for key in ids]

    def _column(self, query: str, ids: Sequence[Id]) -> dict[Id, Any]:
        rows: dict[Id, Any] = {}
        for first in range(0, len(ids), _IDS):
            part = ids[first : first + _IDS]
            asked = f"{query} WHERE id IN ({', '.join('?' * len(part))})"
            rows.update(self._connection.execute(asked, part).fetchall())
        return rows

    @contextmanager
    def _together(self) -> Iterator[None]:
        """A transaction, or part of the one that this thread is in."""
        with self._mendable():
            connection = self._connection
            if connection.in_transaction:
                yield
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    @property
    def _connection(self) -> sqlite3.Connection:
        """This thread's own, in this process."""
        own = getattr(self._local, "connection", None)
        if own is None or self._local.process != os.getpid():
            own = sqlite3.connect(
                self.path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False
            )
            own.execute("PRAGMA journal_mode = WAL")
            own.execute("PRAGMA synchronous = NORMAL")
            self._local.connection, self._local.process = own, os.getpid()
            self._open.append(own)
        return own

    @contextmanager
    def _mendable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{self.shown} cannot be read or written: {error}") from None
