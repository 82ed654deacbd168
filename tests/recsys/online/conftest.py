"""A Redis server of the tests' own, and stores of every kind."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_kinds import KINDS, Place

from benchmarks.redis_server import PROGRAM, redis_server
from recsys.online.places import open_store
from recsys.online.rules import Rules
from recsys.online.store import UserStore


@pytest.fixture(scope="session")
def redis_socket() -> Iterator[Path]:
    """A server that listens on a socket in a folder, and keeps nothing."""
    pytest.importorskip("redis")
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"no {PROGRAM}: `make test` installs it for root on Debian")
    with redis_server() as socket:
        yield socket


@pytest.fixture(scope="session")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The URL of a store of a kind that is not there yet."""
    folder, numbers = tmp_path_factory.mktemp("stores"), itertools.count()

    def place(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{folder}/{next(numbers)}.db"
        socket = request.getfixturevalue("redis_socket")
        return f"unix://{socket}?prefix=t[{next(numbers)}]"

    return place


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, place: Place) -> str:
    """The URL of a store of each kind."""
    return place(request.param)


@pytest.fixture
def opened(url: str) -> Iterator[Callable[[Rules | None], UserStore]]:
    """Opens that store, which the first rules make."""
    stores: list[UserStore] = []

    def opened(rules: Rules | None = None) -> UserStore:
        stores.append(open_store(url, rules))
        return stores[-1]

    yield opened
    for store in stores:
        store.close()
