"""The planted log and its examples, written once a session."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from feature_store.event_log import EventLog
from planted import Shape, write_log, write_planted
from recsys.data.examples import Examples
from recsys.distributed import Group, join
from recsys.embeddings.options import PerFeature
from recsys.serving.index.options import IVFConfig

# Tests run side by side: threads that wait for each other's cores are many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
torch.set_num_threads(1)
logging.getLogger("torch.__trace").propagate = False  # pages of internals beside a failure
logging.disable(logging.DEBUG)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `cuda` need a GPU: `python -m benchmarks.gpu` runs them there."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("no GPU")


@pytest.fixture(scope="session")
def planted_log(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    """The planted log, with its catalogue beside it."""
    return write_log(tmp_path_factory.mktemp("planted") / "log")


@pytest.fixture(scope="session")
def planted(planted_log: EventLog) -> dict[Shape, Examples]:
    """The planted examples in every shape."""
    shapes: tuple[Shape, ...] = ("sequences", "events", "labelled")
    folder = planted_log.folder.parent
    return {shape: write_planted(planted_log, folder / shape, shape) for shape in shapes}


@pytest.fixture
def group() -> Iterator[Group]:
    """A group of one."""
    with join("cpu") as alone:
        yield alone


@pytest.fixture(scope="session")
def text_bundle(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The bundle of a recformer that has learned nothing, with an index that grows."""
    from conformance import bundle_of, small
    from recsys.retrievers.recformer import Recformer

    model = Recformer(small("recformer"), PerFeature(), planted["sequences"])
    model.encode_items()
    folder, index = tmp_path_factory.mktemp("text") / "bundle", IVFConfig(lists=2, probes=2)
    return bundle_of(model, planted["sequences"], planted_log, folder, index).bundle.folder
