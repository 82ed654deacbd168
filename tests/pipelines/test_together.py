"""A verb on several processes; what is said where one of them ends."""

from __future__ import annotations

import os
import signal
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.run import parse_args

from feature_store.errors import DataError
from pipelines.cli import together

Ask = Callable[..., tuple[Any, str, str]]

DOOMED = """
import os, signal, sys, time
rank = os.environ["RANK"]
print(os.getpid(), file=open(f"{sys.argv[1]}/{rank}", "w"))
if rank == "1":
    END
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """What handles signals is as it was: torch lets its own stand."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def launched(folder: Path, end: str) -> Namespace:
    """Two processes, of which one ends so."""
    program = folder / "doomed.py"
    program.write_text(DOOMED.replace("END", end))
    return parse_args(["--nproc-per-node", "2", str(program), str(folder)])


def test_a_process_that_is_killed_is_named_in_a_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = launched(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(DataError, match=r"was ended by SIGKILL; .* --resume") as caught:
        together.launch(asked)
    assert f"rank 1 (process {(tmp_path / '1').read_text().strip()})" in str(caught.value)
    assert "\n" not in str(caught.value) and capfd.readouterr().err == ""
    with pytest.raises(ProcessLookupError):  # the other one is not left behind
        os.kill(int((tmp_path / "0").read_text()), 0)


def test_a_process_that_is_killed_is_begun_again_where_that_is_asked_for(tmp_path: Path) -> None:
    """With the other one; from the checkpoint, as `python -m benchmarks.rank_dies` shows."""
    first = "not os.path.exists(f'{sys.argv[1]}/again')"
    again = "open(f'{sys.argv[1]}/again', 'w'); os.kill(os.getpid(), signal.SIGKILL)"
    asked = launched(tmp_path, f"if {first}:\n        {again}")
    program = Path(asked.training_script)
    program.write_text(program.read_text().replace("60", ".2"))
    asked.max_restarts = 1
    together.launch(asked)
    assert (tmp_path / "again").exists()


def test_one_that_has_said_why_is_not_talked_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = launched(tmp_path, 'sys.exit("recsys: no room")')
    with pytest.raises(SystemExit) as ended:
        together.launch(asked)
    assert ended.value.code == 1 and capfd.readouterr().err == "recsys: no room\n"


def test_a_signal_ends_it_as_the_shell_says(tmp_path: Path) -> None:
    asked = launched(tmp_path, "os.kill(os.getppid(), signal.SIGTERM)")
    with pytest.raises(SystemExit) as ended:
        together.launch(asked)
    assert ended.value.code == 128 + signal.SIGTERM


def test_a_verb_follows_the_options_of_torchrun(
    recsys: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Namespace] = []
    monkeypatch.setattr(together, "launch", asked.append)
    status, _, errors = recsys("together", "--nproc-per-node", "3", "run", "a.toml", "--resume")
    assert status == 0, errors
    (words,) = asked
    assert (words.nproc_per_node, words.module, words.training_script) == (
        "3",
        True,
        "pipelines.cli",
    )
    assert words.training_script_args == ["run", "a.toml", "--resume"]
