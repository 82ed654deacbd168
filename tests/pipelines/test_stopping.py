"""Signals and full disks end a program in one line, and leave nothing half written."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from feature_store import durable
from feature_store.errors import DataError
from pipelines import cli
from pipelines.cli.fault import told_of_fault
from pipelines.run import run
from recsys.export import bundle
from recsys.runs.finished import Run

Ask = Callable[..., tuple[Any, str, str]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def finished(tree_of: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    tree = tree_of(tmp_path_factory.mktemp("runs"), retriever={"name": "popularity"}, baselines=[])
    return run(tree)


@pytest.fixture
def stopped_in_export(monkeypatch: pytest.MonkeyPatch) -> Callable[[signal.Signals], None]:
    """Sends a signal to the program when it has half written a bundle."""

    def send(number: signal.Signals) -> None:
        def kill(*arguments: Any) -> None:
            os.kill(os.getpid(), number)

        monkeypatch.setattr(bundle, "_write_users", kill)

    return send


@pytest.mark.parametrize(
    ("number", "status", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")],
)
def test_a_signal_is_one_line_and_leaves_no_half_bundle(
    finished: Run,
    recsys: Ask,
    stopped_in_export: Callable[[signal.Signals], None],
    number: signal.Signals,
    status: int,
    name: str,
) -> None:
    before = sorted(path.name for path in finished.folder.iterdir())
    handler = signal.getsignal(number)
    stopped_in_export(number)
    code, _, told = recsys("export", finished.folder)
    assert code == status
    assert told.splitlines()[-1].startswith(f"recsys: stopped by {name}: what is whole stands")
    assert "Traceback" not in told
    assert sorted(path.name for path in finished.folder.iterdir()) == before
    assert signal.getsignal(number) is handler


def test_of_processes_that_work_together_one_tells(
    recsys: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(**_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(cli, "app", stop)
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        code, _, told = recsys()
        assert (code, told.count("stopped by SIGTERM")) == (143, lines)


def test_a_shell_sees_the_signals_own_status() -> None:
    """In a process of its own, which is told to stop before it has done anything."""
    program = (
        "import os, signal, sys, typer; from pipelines import cli; "
        "cli.app = lambda **_: os.kill(os.getpid(), signal.SIGTERM); cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 143
    assert done.stderr.startswith("recsys: stopped by SIGTERM") and done.stderr.count("\n") == 1


# -- full disks --------------------------------------------------------------------------------


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """A disk with room for so many bytes a file: more is an error of the system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 300, 3_000, 8_000])
@pytest.mark.parametrize("verb", ["export", "evaluate"])
def test_a_full_disk_is_one_line_wherever_it_happens(
    finished: Run, recsys: Ask, verb: str, room: int
) -> None:
    """torch's own writer of programs would end the process with a native crash."""
    before = sorted(path.name for path in finished.folder.iterdir())
    bundle_before = {p: p.read_bytes() for p in finished.bundle.rglob("*") if p.is_file()}
    with files_up_to(room):
        code, _, told = recsys(verb, finished.folder)
    assert isinstance(code, str) and code.startswith("recsys: ") and "\n" not in code, (code, told)
    assert "Traceback" not in told
    assert sorted(path.name for path in finished.folder.iterdir()) == before
    assert {p: p.read_bytes() for p in finished.bundle.rglob("*") if p.is_file()} == bundle_before


def test_free_space_is_looked_at_before_an_export(
    finished: Run, recsys: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "free_bytes", lambda folder: 10)
    monkeypatch.setattr(bundle, "staged", None)  # nothing is begun
    code, _, _ = recsys("export", finished.folder)
    assert "GB at least, and 0.00 GB of that disk are free: make room" in code


def test_what_a_full_disk_says_names_the_file(tmp_path: Path) -> None:
    with files_up_to(5), pytest.raises(DataError, match=r"x\.txt cannot be written: .*GB are free"):
        durable.write_text("longer than that", tmp_path / "x.txt")
    assert list(tmp_path.iterdir()) == []


# -- half files --------------------------------------------------------------------------------


@pytest.mark.parametrize("half", ["", '{"retr', "[]"])
def test_half_of_the_figures_is_told_or_made_again(finished: Run, recsys: Ask, half: str) -> None:
    files = Run(finished.folder).files
    whole, seconds, done = (
        path.read_text() for path in (files.metrics, files.seconds, files.steps_done)
    )
    files.seconds.write_text(half)
    assert Run(finished.folder).results["retrievers"]["popularity"]["seconds"] == {}
    files.metrics.write_text(half)
    with pytest.raises(DataError, match=r"metrics\.json cannot be read: run `recsys evaluate"):
        _ = Run(finished.folder).results
    code, _, told = recsys("export", finished.folder)
    assert "recsys evaluate" in code and "\n" not in code and "Traceback" not in told
    files.steps_done.write_text(half)
    assert recsys("evaluate", finished.folder)[0] == 0
    assert files.metrics.read_text() == whole
    files.seconds.write_text(seconds)
    files.steps_done.write_text(done)


def test_a_fault_is_told_also_where_no_temporary_file_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the place that the file would have named."""

    def full(**_: object) -> tuple[int, str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", full)
    try:
        {}["a\x1b"]
    except KeyError as error:
        told = told_of_fault(error)
    assert re.search(r"KeyError: .*; please report it with where it was: .*_stopping.py:\d+$", told)
    assert told.isprintable()
