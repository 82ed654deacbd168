"""Bundles of models that have learned nothing, made once, and a server within the process."""

from __future__ import annotations

from pathlib import Path

import pytest
from asked import Asking, bundle, serving

from feature_store.event_log import EventLog
from planted import Shape
from recsys.data.examples import Examples


@pytest.fixture(scope="session")
def folder(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A bundle of a generator and a ranker."""
    return bundle(planted, planted_log, tmp_path_factory.mktemp("served") / "bundle", seed=1)


@pytest.fixture(scope="session")
def other(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Another one, that answers otherwise, and has no ranker."""
    folder = tmp_path_factory.mktemp("other") / "bundle"
    return bundle(planted, planted_log, folder, seed=2, ranker=False)


@pytest.fixture(scope="session")
def asking(folder: Path) -> Asking:
    """A server of the bundle that all tests ask which do not change it."""
    with serving(folder) as asking:
        yield asking
