"""What killed programs left is removed by whoever comes next; what somebody builds is not."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from feature_store.durable import discard, restore, staged, tidy, write_text
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.leftovers import Scratch, hold, scratch

LEFT = "0123456789ab"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """As another program holds what it builds."""
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield
    os.close(handle)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_file_that_was_being_written_goes_with_the_next_one(tmp_path: Path) -> None:
    left = tmp_path / f".old.json.partial-{LEFT}"
    for path in (left, tmp_path / ".hidden", tmp_path / "mine.partial-0123456789ab"):
        path.write_text("half")
    write_text("whole", tmp_path / "new.json")
    assert names(tmp_path) == [".hidden", "mine.partial-0123456789ab", "new.json"]


def test_a_file_that_another_program_writes_stays(tmp_path: Path) -> None:
    other = tmp_path / f".new.json.partial-{LEFT}"
    other.touch()
    with held(other):
        write_text("whole", tmp_path / "new.json")
        assert names(tmp_path) == [other.name, "new.json"]
    tidy(tmp_path)
    assert names(tmp_path) == ["new.json"]


def test_a_folder_that_somebody_builds_is_refused_and_not_brought_back(tmp_path: Path) -> None:
    folder, other = tmp_path / "store", tmp_path / f".store.partial-{LEFT}"
    for name in (other.name, f".store.replaced-{LEFT}"):
        (tmp_path / name).mkdir()
    with held(other):
        assert not restore(folder)  # it is between its two renames
        with pytest.raises(DataError, match="being built by another program"), staged(folder):
            pass
        assert names(tmp_path) == sorted([other.name, f".store.replaced-{LEFT}"])
    assert restore(folder) and names(tmp_path) == ["store"]


def test_what_was_replaced_goes_also_where_nothing_is_built_again(tmp_path: Path) -> None:
    for name in ("store", f".store.replaced-{LEFT}", f".store.partial-{LEFT}"):
        (tmp_path / name).mkdir()
    assert restore(tmp_path / "store") and names(tmp_path) == ["store"]


def test_a_folder_is_gone_before_its_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checkpoints" / "step").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed by then
        discard(tmp_path / "checkpoints")
    assert len(names(tmp_path)) == 1 and not (tmp_path / "checkpoints").exists()
    write_text("whole", tmp_path / "config.toml")
    assert names(tmp_path) == ["config.toml"]
    discard(tmp_path / "nothing")


def test_a_signal_while_something_is_removed_waits_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rmtree, calls = shutil.rmtree, iter([1])

    def stopped(folder: Path, **options: bool) -> None:
        if next(calls, None):
            raise KeyboardInterrupt
        rmtree(folder, **options)

    with pytest.raises(KeyboardInterrupt), staged(tmp_path / "store") as aside:
        (aside / "file").touch()
        monkeypatch.setattr(shutil, "rmtree", stopped)
        raise KeyError
    assert names(tmp_path) == []


def test_what_is_taken_for_left_behind_is_made_again(tmp_path: Path) -> None:
    made: list[Path] = []

    def make() -> Path:
        made.append(tmp_path / str(len(made)))
        made[-1].mkdir()
        if len(made) == 1:  # somebody comes before it is held
            made[-1].rmdir()
        return made[-1]

    path, handle = hold(make)
    os.close(handle)
    assert path == made[1] and path.exists()


@pytest.mark.parametrize("use", [scratch, lambda kind: Engine(EngineConfig(threads=1))])
def test_temporary_folders_of_killed_programs_go_and_those_in_use_stay(
    temporary: Path, use: Callable[[str], Engine]
) -> None:
    (temporary / "recsys-scratch-engine-left" / "spilled").mkdir(parents=True)
    (temporary / "others").mkdir()
    other = Scratch("engine")
    with use("engine"):
        (own,) = set(names(temporary)) - {"others", other.path.name}
        assert own.startswith("recsys-scratch-engine-")
    assert names(temporary) == sorted(["others", other.path.name])
    other.close()
    other.close()
    assert names(temporary) == ["others"]


def test_temporary_folders_go_also_where_nothing_is_made_again(temporary: Path) -> None:
    (temporary / "recsys-scratch-engine-left").mkdir()
    assert restore(temporary / "examples") and names(temporary) == []


def test_no_room_for_temporary_files_is_told_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(DataError, match=r"No space left on device.*TMPDIR"):
        Engine()
