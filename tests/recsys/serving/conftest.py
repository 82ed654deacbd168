"""Retrievers that are trained and exported once for all tests of serving in a process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from served import Served

from conformance import learn, measure, shape_of, small, training
from feature_store.event_log import EventLog
from planted import Shape
from recsys.data.examples import Examples
from recsys.distributed import join


@pytest.fixture(scope="session")
def serve(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Served]:
    """Trains and exports a retriever by name."""

    def serve(name: str) -> Served:
        examples, folder = planted[shape_of(name)], tmp_path_factory.mktemp(name)
        with join("cpu") as group:
            retriever = learn(small(name), examples, folder, group, training(epochs=6))
            per_user = measure(retriever, examples, group).per_user
        items = examples.vocabulary(examples.schema.item)
        users = examples.vocabulary(examples.schema.user).decode(per_user["user"].to_numpy())
        lists = [items.decode(np.array(rows)) for rows in per_user["recommended"].to_pylist()]
        recommended = {
            user: found.to_pylist()[:10]
            for user, found in zip(users.to_pylist(), lists, strict=True)
        }
        served = Served(retriever, examples, planted_log, None, recommended)  # type: ignore[arg-type]
        served.recommender = served.export(folder / "bundle")
        return served

    return serve


@pytest.fixture(scope="session")
def sasrec(serve: Callable[[str], Served]) -> Served:
    return serve("sasrec")


@pytest.fixture(scope="session")
def two_tower(serve: Callable[[str], Served]) -> Served:
    return serve("two_tower")


@pytest.fixture
def copy(sasrec: Served, tmp_path: Path) -> Path:
    """A copy of the bundle, to be damaged."""
    return Path(shutil.copytree(sasrec.bundle, tmp_path / "copy"))
