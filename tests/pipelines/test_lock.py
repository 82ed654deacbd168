"""Two programs on one run: the second is refused, unless it only reads."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from forks import Forks

Ask = Callable[..., tuple[Any, str, str]]
HOLD = """
import sys
from pathlib import Path
from recsys.runs.folder import RunFolder
from recsys.runs.lock import locked
with locked(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def config(
    tree_of: Callable[..., Any], recsys: Ask, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A config whose run is finished; it has no gradient to follow."""
    folder = tmp_path_factory.mktemp("lock")
    tree = tree_of(folder, retriever={"name": "item_knn"}, evaluation={"ks": [10]})
    (folder / "small.toml").write_text(tomli_w.dumps(tree))
    assert recsys("run", folder / "small.toml")[0] == 0
    return folder / "small.toml"


@contextmanager
def held(config: Path) -> Iterator[subprocess.Popen[str]]:
    """Another program that works on the run."""
    program = [sys.executable, "-c", HOLD, str(config.parent / "small")]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_killed_program_holds_nothing(recsys: Ask, config: Path) -> None:
    with held(config) as process:
        assert f"process {process.pid} on " in recsys("train", config)[0]
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert (config.parent / "small" / ".lock").exists()  # it says nothing by itself
        assert recsys("train", config)[0] == 0


@pytest.fixture(scope="module")
def holder(config: Path) -> Iterator[subprocess.Popen[str]]:
    with held(config) as process:
        yield process


@pytest.mark.parametrize(
    "words",
    [
        ["run"],
        ["train"],
        ["train", "--fresh"],
        ["evaluate"],
        ["export"],
        ["tune"],
        ["tune", "--retriever", "als"],
        ["plan"],
        ["embeddings", "inspect"],
    ],
    ids=" ".join,
)
def test_a_second_program_that_writes_is_refused_by_name(
    recsys: Ask, config: Path, holder: subprocess.Popen[str], words: list[str]
) -> None:
    before = (config.parent / "small" / "config.toml").stat().st_mtime_ns
    verbs = 2 if words[0] == "embeddings" else 1
    message, out, _ = recsys(*words[:verbs], config, *words[verbs:])
    assert message.startswith(f"recsys: {config.parent / 'small'} is being written by process ")
    assert f"process {holder.pid} on " in message and "\n" not in message and out == ""
    assert (config.parent / "small" / "config.toml").stat().st_mtime_ns == before


@pytest.mark.usefixtures("holder")
def test_those_who_read_are_not_refused(recsys: Ask, config: Path) -> None:
    run = config.parent / "small"
    for words in (
        ("recommend", run, "--user", 2),
        ("compare", run, f"{run}:popularity"),
        ("config", run),
    ):
        status, _, errors = recsys(*words)
        assert status == 0, errors


@pytest.mark.usefixtures("holder")
def test_other_runs_are_free(recsys: Ask, config: Path) -> None:
    assert recsys("train", config, "name=other")[0] == 0


def test_all_processes_end_cleanly_where_the_folder_is_held(
    config: Path, holder: subprocess.Popen[str], apart: Forks
) -> None:
    done = apart.recsys("train", config, processes=2)
    told = [line for line in done.err.splitlines() if line.startswith("recsys: ")]
    assert done.codes == [1, 1] and len(told) == 2
    assert all(f"process {holder.pid} on " in line for line in told)
