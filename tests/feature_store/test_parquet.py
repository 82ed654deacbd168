"""A bit that flips in a Parquet file is an error that names the file, never another value."""

from __future__ import annotations

import random
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.parquet import check_parquet, open_parquet, read_parquet
from feature_store.schema import Feature, Schema

# of the largest entropy, so that the pages are as long as their values
VALUES = [pow(7, n, 2**61 - 1) for n in range(2_000)]
TABLE = pa.table({"x": VALUES, "lists": [[n, n + 1] for n in VALUES]})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_parquet(TABLE, tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def pages(path: Path) -> range:
    """The bytes before the footer."""
    footer = int.from_bytes(path.read_bytes()[-8:-4], "little")
    return range(path.stat().st_size - 8 - footer)


def test_what_was_written_comes_back(path: Path) -> None:
    assert read_parquet(path).equals(TABLE)
    assert read_parquet(path, ["lists", "x"]).column_names == ["lists", "x"]


def test_a_folder_is_its_files_one_behind_the_other(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    path.rename(folder / "00000.parquet")
    write_parquet(TABLE.slice(0, 3), folder / "00001.parquet")
    assert read_parquet(folder, ["x"])["x"].to_pylist() == [*VALUES, *VALUES[:3]]


def test_no_flipped_bit_becomes_another_value(path: Path) -> None:
    draws, whole = random.Random(1), path.read_bytes()
    refused = 0
    for _ in range(60):
        flip(path, draws.choice(pages(path)), draws.randrange(8))
        try:
            assert read_parquet(path).equals(TABLE)
        except DataError as error:
            assert "rows.parquet cannot be read as Parquet" in str(error)
            refused += 1
        path.write_bytes(whole)
    assert refused > 50


def test_a_file_that_begins_as_another_is_refused(path: Path) -> None:
    flip(path, 0)
    assert pq.read_table(path).equals(TABLE)  # which others take
    with pytest.raises(DataError, match="does not begin as Parquet"):
        open_parquet(path)


def test_a_false_number_of_rows_is_refused(path: Path) -> None:
    """2000 as the footer writes it, of the file and of its row group: either is given the lie."""
    written = bytes([0xA0, 0x1F])  # zigzag varint of 2000
    footer = pages(path).stop
    content, places = path.read_bytes(), []
    place = content.find(written, footer)
    while place >= 0:
        places.append(place)
        place = content.find(written, place + 1)
    refused = 0
    for place in places:
        flip(path, place, 1)  # 1999 or 2001
        try:
            open_parquet(path).close()
        except DataError:
            refused += 1
        path.write_bytes(content)
    assert refused >= 3  # of the file, of the row group, and of the values of the column


def test_a_flipped_bit_of_the_event_log_is_refused_before_it_is_used(tmp_path: Path) -> None:
    features = (
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item", dtype="int64"),
    )
    log = EventLog.create(tmp_path / "log", Schema(user="u", item="i", features=features))
    times = [datetime(2024, 1, 1)] * len(VALUES)
    log.append(pa.table({"u": VALUES, "i": VALUES, "time": times}))
    log.check()
    (path,) = log.files
    flip(path, 5_000)
    with pytest.raises(DataError, match=f"{path.name} cannot be read as Parquet"):
        log.check()
    with pytest.raises(DataError, match=f"{path.name} cannot be read as Parquet"):
        check_parquet(path)
