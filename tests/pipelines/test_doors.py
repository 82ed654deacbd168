"""What comes in through the command line is taken whole, or refused in one line that helps."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w
from rich.console import Console
from rich.table import Table

from feature_store.errors import command
from pipelines.cli.printing import print_finished
from pipelines.printer import print_whole
from recsys.runs.folder import RunFolder

Ask = Callable[..., tuple[Any, str, str]]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("words", [["recommend", ".", "--diversity"], ["plan", ".", "--hbm"]])
def test_no_number_of_the_command_line_is_none(recsys: Ask, words: list[str], value: str) -> None:
    status, _, errors = recsys(*words, value)
    assert status == 2 and words[-1] in errors and "Invalid value" in errors


@pytest.mark.parametrize("verb", ["recommend", "score", "compare"])
@pytest.mark.parametrize("place", ["nowhere/out", "folder"])
def test_where_answers_go_is_looked_at_before_any_work(
    recsys: Ask, tmp_path: Path, verb: str, place: str
) -> None:
    name = f"{place}.html" if verb == "compare" else f"{place}.parquet"
    if place == "folder":
        (tmp_path / name).mkdir()
    asked = ["--requests", "none"] if verb == "score" else []
    message, _, _ = recsys(verb, tmp_path / "no_run", *asked, "--out", tmp_path / name)
    assert message.startswith(f"recsys: --out {tmp_path / name}: ") and "folder" in message


def test_what_nobody_foresaw_is_one_line_with_a_file(
    recsys: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def doctor() -> int:
        raise KeyError("of\nours")

    monkeypatch.setattr("recsys.doctor.doctor", doctor)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    message, out, errors = recsys("doctor")
    (file,) = tmp_path.iterdir()
    assert message.startswith("recsys: this is a fault of the program, KeyError: ")
    assert str(file) in message and "\n" not in message and "Traceback" not in out + errors
    assert "raise KeyError" in file.read_text()


@pytest.mark.parametrize("path", ["a\nb", "\u00e9" * 300, "a" * 5000, "", "/dev/null"])
@pytest.mark.parametrize("verb", ["ingest", "recommend", "config", "evaluate", "plan"])
def test_any_path_is_told_in_one_line(recsys: Ask, verb: str, path: str) -> None:
    words = ["--user", "1"] if verb == "recommend" else []
    message, _, errors = recsys(verb, path, *words)
    assert message.startswith("recsys: ") and "\n" not in message and len(message) < 800
    assert "fault of the program" not in message and "Traceback" not in errors


@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_a_narrow_terminal_loses_no_column(width: int) -> None:
    table = Table()
    table.add_column("run", overflow="fold")
    for heading in ("figure", "difference", "p"):
        table.add_column(heading, no_wrap=True)
    table.add_row("runs/with a name " * 4, "0.1234\n[0.1111, 0.2222]", "+0.0100\n[-0.1, 0.1]", "1")
    console = Console(file=StringIO(), width=width)
    print_whole(table, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for whole in ("[0.1111, 0.2222]", "[-0.1, 0.1]", "figure", "difference", "p"):
        assert whole in text
    assert console.width == width
    if width >= 80:
        assert max(map(len, text.splitlines())) <= width


def finished(folder: Path) -> Any:
    """A ranker's run, as far as its end is told of."""
    folder.mkdir(parents=True)
    tree = {
        "name": folder.name,
        "output": str(folder.parent),
        "data": {"source": "synthetic"},
        "ranker": {"name": "dcn"},
        "tracking": {"enabled": False},
    }
    files = RunFolder(folder)
    files.config.write_text(tomli_w.dumps(tree))
    return SimpleNamespace(files=files, results={})


def test_printed_commands_can_be_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my runs" / "mine"
    print_finished(finished(folder))
    told = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert f"recsys score '{folder}' --requests FILE" in told["ask more"]


def test_a_command_is_quoted_where_it_must_be() -> None:
    assert command("recsys", "train", "runs/plain", "-k", 10) == "recsys train runs/plain -k 10"
    assert command("recsys", "train", "my runs/$x") == "recsys train 'my runs/$x'"
