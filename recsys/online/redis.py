"""Users in Redis, for servers on several machines.

A user's record is one value, which is read, changed and written back in a transaction that fails
where anybody else has written it since (WATCH, MULTI, EXEC), and is then tried again. What survives
a crash of the server itself is what its own persistence keeps: turn on `appendonly`. A cluster of
several nodes is not supported, since a transaction holds keys of many users. A program that is
killed within an append may leave it half done, whole users at a time: the same append again adds
the rest.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import DataError
from recsys.online.rules import Rules
from recsys.online.store import DAY, Change, Id, Mark, UserStore

PREFIX = "recsys"
_TRIES, _PAUSE_S = 200, 0.001
_TIMEOUT_S = 10.0
_MILLI = 1000  # microseconds
_SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "\\*?[]^-"})


class RedisStore(UserStore):
    """Users under a prefix of a Redis server; `rules` make them where there are none.

    `shown` is the address without names and passwords. Raises DataError as `SqliteStore`, where no
    server answers, and without the package `redis`.
    """

    at_once = 128  # users in a transaction: the fewer, the less is done again

    def __init__(
        self,
        url: str,
        shown: str,
        prefix: str = PREFIX,
        rules: Rules | None = None,
        *,
        alike: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock)
        self.shown = shown
        self._prefix = prefix
        try:
            import redis
        except ImportError:
            raise DataError(
                f"{shown} needs the package redis: pip install 'recsys[redis]'"
            ) from None
        self._errors: Any = redis.exceptions
        try:
            self._client: Any = redis.Redis.from_url(
                url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
            )
        except ValueError as error:
            raise DataError(f"{shown} is no address of a server: {error}") from None
        self._settle(rules, alike)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def users(self) -> pa.Array:
        """The ids of all known users, sorted."""
        start = self._key("user", "")
        pattern = start.translate(_SPECIAL) + "*"
        with self._mendable():
            keys = list(self._client.scan_iter(match=pattern, count=1000))
        texts = pa.array([key[len(start.encode()) :].decode() for key in keys], pa.string())
        ids = pc.unique(texts.cast(self.schema.field(self.rules.log.user).type))
        return ids.take(pc.sort_indices(ids))

    def remembered(self, name: str) -> str | None:
        """What was remembered by that name."""
        with self._mendable():
            value = self._client.hget(self._key("marks"), name)
        return None if value is None else value.decode()

    def remember(self, mark: Mark, *, once: bool = False) -> None:
        with self._mendable():
            (self._client.hsetnx if once else self._client.hset)(self._key("marks"), *mark)

    def _change(self, ids: Sequence[Id], change: Change) -> int:
        keys = [self._key("user", key) for key in ids]
        for attempt in range(_TRIES):
            with self._mendable(), self._client.pipeline() as pipe:
                try:
                    pipe.watch(*keys)
                    changed, added = change(pipe.mget(keys))
                    if changed:
                        pipe.multi()
                        for place, (record, newest) in changed.items():
                            pipe.set(keys[place], record, pxat=self._end_of(newest))
                        pipe.execute()
                    return added
                except self._errors.WatchError:  # somebody else was faster
                    time.sleep(random.uniform(0, _PAUSE_S * (attempt + 1)))
        raise DataError(f"{self.shown}: others write the same users all the time: try again later")

    def _end_of(self, newest: int) -> int | None:
        """Milliseconds since 1970 at which a user is forgotten."""
        if self.rules.days is None:
            return None
        return int(newest + self.rules.days * DAY) // _MILLI + 1

    def _read(self, ids: Sequence[Id]) -> tuple[list[bytes | None], list[str | None]]:
        if not ids:
            return [], []
        keys = [self._key("user", key) for key in ids]
        keys += [self._key("features", key) for key in ids]
        with self._mendable():
            values = self._client.mget(keys)
        features = [None if value is None else value.decode() for value in values[len(ids) :]]
        return values[: len(ids)], features

    def _write_features(self, ids: Sequence[Id], rows: Sequence[str]) -> None:
        for first in range(0, len(ids), 1000):
            pairs = zip(ids[first : first + 1000], rows[first : first + 1000], strict=True)
            with self._mendable():
                self._client.mset({self._key("features", key): row for key, row in pairs})

    def _forget(self, ids: Sequence[Id]) -> int:
        if not ids:
            return 0
        with self._mendable():
            gone = self._client.delete(*(self._key("user", key) for key in ids))
            self._client.delete(*(self._key("features", key) for key in ids))
        return int(gone)

    def _forget_before(self, micros: int) -> None:
        """The server does, by itself."""

    def _key(self, *parts: Id) -> str:
        return ":".join((self._prefix, *map(str, parts)))

    @contextmanager
    def _mendable(self) -> Iterator[None]:
        try:
            yield
        except (self._errors.RedisError, OSError) as error:
            raise DataError(f"{self.shown} does not answer as it should: {error}") from None
