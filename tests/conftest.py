"""What several tests share."""

from __future__ import annotations

import gc
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forks
import object_storage
import pytest
from hypothesis import HealthCheck, settings

# The same examples every time, so that what passed once passes; HYPOTHESIS_PROFILE=explore draws
# others, to look for what nobody thought of.
# a busy machine is slow, and nothing is wrong with the code
for name, derandomize in (("repeatable", True), ("explore", False)):
    settings.register_profile(
        name,
        derandomize=derandomize,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# Tests run in several processes: torch's threads of one would wait for those of another.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """Nothing that was imported is looked at again by the collector, which is half a second each
    time, and a program that was verified when it was written is not opened a second time."""
    gc.collect()
    gc.freeze()
    bundle: Any = sys.modules.get("recsys.serving.bundle")
    if bundle is not None:
        bundle.open_program = opened_once(bundle.open_program)


def opened_once(open_program: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Remembers the newest programs by what stands in their files."""
    newest: dict[bytes, Any] = {}

    def opened(path: Path) -> Any:
        content = hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest()
        if content not in newest:
            newest[content] = open_program(path)
        while len(newest) > 4:
            del newest[next(iter(newest))]
        return newest[content]

    return opened


@pytest.fixture(scope="session")
def data_root() -> Callable[[str], Path]:
    """Finds a folder of real data, such as "ml-1m"; the test is skipped when it is absent.

    The folders lie under $RECSYS_DATA, or under shared/data beside the repository.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("RECSYS_DATA", beside))

    def find(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"{root / name} is absent: set RECSYS_DATA to the folder that holds {name}")
        return root / name

    return find


@pytest.fixture(scope="session")
def apart() -> Iterator[forks.Forks]:
    """Starts `recsys` in processes of its own."""
    started = forks.Forks()
    yield started
    started.close()


@pytest.fixture(scope="module")
def storage() -> Iterator[object_storage.Storage]:
    """A bucket on a server of S3's protocol that the tests of a module share."""
    with object_storage.serving() as storage:
        yield storage
