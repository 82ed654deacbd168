"""A path means the log that somebody named, and nothing that lies beside or within it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.schema import Feature, Schema
from feature_store.sources.files import Files
from feature_store.sources.paths import find

DATA = ("a.parquet", "day=1/b.parquet", "c.csv.gz")
ASIDE = (
    *("_temporary/0/a.parquet", ".ipynb_checkpoints/a.parquet", "day=1/_b.parquet"),
    *("day=1/.b.parquet", "_SUCCESS", "day=1/_delta_log/0.parquet", "read.me"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for log in ("exp*", "exp1"):
        for name in (*DATA, *ASIDE):
            (tmp_path / log / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / log / name).touch()
    return tmp_path


def names(pattern: Path | str, root: Path) -> list[str]:
    return [str(file.relative_to(root)) for file in find(str(pattern))]


@pytest.mark.parametrize("log", ["exp*", "exp1"])
def test_a_folder_is_its_data_at_every_level(folder: Path, log: str) -> None:
    assert names(folder / log, folder / log) == sorted(DATA)


def test_signs_in_the_name_of_a_folder_that_is_there_are_its_name(folder: Path) -> None:
    here, there = folder / "exp*", folder / "exp1"
    assert names(here / "*.parquet", here) == ["a.parquet"]
    assert names(here / "a.parquet", here) == ["a.parquet"]
    assert names(here / "**" / "*.parquet", here) == ["a.parquet", "day=1/b.parquet"]
    assert names(folder / "exp[1]" / "**" / "*.parquet", there) == ["a.parquet", "day=1/b.parquet"]
    assert len(find(str(folder / "e*p?" / "a.parquet"))) == 2


def test_what_lies_aside_may_be_named(folder: Path) -> None:
    log = folder / "exp1"
    assert names(log / "_temporary", log) == ["_temporary/0/a.parquet"]
    assert names(log / "_temporary" / "0" / "a.parquet", log) == ["_temporary/0/a.parquet"]
    assert names(log / "_t*" / "*" / "*.parquet", log) == ["_temporary/0/a.parquet"]
    with pytest.raises(DataError, match="no Parquet or CSV file"):
        find(str(log / "*" / "_x*.parquet"))


def test_a_pattern_from_where_one_stands(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "exp*")
    assert [str(file) for file in find("*.parquet")] == ["a.parquet"]


def test_an_archive_leaves_out_what_lies_aside(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name in ("__MACOSX/u.data", "ml/.old/u.data", "ml/u.data"):
            archive.writestr(name, name)
    with Files(tmp_path / "data.zip").open("u.data") as stream:
        assert stream.read() == b"ml/u.data"


def test_a_log_does_not_read_what_others_left_beside_its_events(tmp_path: Path) -> None:
    ids = [
        Feature(name=n, kind="id", side=s, dtype="int64") for n, s in (("u", "user"), ("i", "item"))
    ]
    log = EventLog.create(tmp_path / "log", Schema(user="u", item="i", features=tuple(ids)))
    (tmp_path / "log" / "events" / "._2024-01-01_2024-01-01_000000.parquet").touch()
    assert log.files == []
