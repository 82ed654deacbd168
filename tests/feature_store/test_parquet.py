"""A bit that flips in a Parquet file is an error that names the file, never another value."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.parquet import (
    check_parquet,
    open_parquet,
    read_batches,
    read_parquet,
    read_rows,
)
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


def test_what_a_program_left_unfinished_is_no_part_of_a_folder(tmp_path: Path) -> None:
    for name in ("a=1/part.parquet", "_temporary/0/part.parquet", ".parts/part.parquet"):
        (tmp_path / name).parent.mkdir(parents=True)
        write_parquet(TABLE.slice(0, 3), tmp_path / name)
    assert read_parquet(tmp_path).equals(TABLE.slice(0, 3))
    shutil.rmtree(tmp_path / "a=1")
    with pytest.raises(DataError, match=r"cannot be read: it holds no Parquet files"):
        read_parquet(tmp_path)
    with pytest.raises(DataError, match=r"gone cannot be read: there is no such file"):
        read_parquet(tmp_path / "gone")


def test_rows_are_chosen_by_what_a_column_holds(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet", row_group_size=7)
    pq.write_table(TABLE.slice(5, 4), tmp_path / "b.parquet")
    asked = pa.array([VALUES[8], VALUES[30], 5])
    table = read_rows(tmp_path, ["lists", "x"], "x", asked)
    assert table.column_names == ["lists", "x"]
    assert table["x"].to_pylist() == [VALUES[8], VALUES[30], VALUES[8]]
    assert table["lists"].to_pylist()[1] == TABLE["lists"].to_pylist()[30]
    assert read_rows(tmp_path, ["x"], "x", pa.array([], pa.int64())).num_rows == 0


def test_batches_are_all_rows_in_their_order(path: Path) -> None:
    batches = list(read_batches(path, 300))
    assert [batch.num_rows for batch in batches] == [300] * 6 + [200]
    assert pa.Table.from_batches(batches).equals(TABLE)


@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_rows(path, ["x"], "x", pa.array(VALUES)),
        lambda path: list(read_batches(path, 100)),
    ],
    ids=["rows", "batches"],
)
def test_a_flipped_bit_is_seen_by_whoever_reads(path: Path, read: Callable[[Path], Any]) -> None:
    column = pq.read_metadata(path).row_group(0).column(0)
    flip(path, column.data_page_offset - 5_000)  # among the values of its dictionary
    with pytest.raises(DataError, match=r"rows\.parquet cannot be read as Parquet"):
        read(path)


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


def test_a_file_of_another_schema_is_named_with_the_column_that_it_lacks(path: Path) -> None:
    words = r"rows\.parquet has no column 'y': it is of another schema.* it has: x, lists"
    for read in (
        lambda: read_parquet(path, ["x", "y"]),
        lambda: read_rows(path, ["x", "y"], "x", pa.array([1])),
        lambda: list(read_batches(path, 9, ["x", "y"])),
    ):
        with pytest.raises(DataError, match=words):
            read()


def test_what_others_put_into_an_event_log_is_named(tmp_path: Path) -> None:
    features = (
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item", dtype="int64"),
    )
    log = EventLog.create(tmp_path / "log", Schema(user="u", item="i", features=features))
    log.append(pa.table({"u": [1], "i": [2], "time": [datetime(2024, 1, 1)]}))
    (path,) = log.files
    assert isinstance(path, Path)
    for name in ("part-0.parquet", path.name.replace("000000", "000001")):
        other = path.with_name(name)
        write_parquet(pa.table({"a": [1]}), other)
        with pytest.raises(DataError, match=f"{name} is no file of this event log"):
            log.fingerprint  # noqa: B018
        other.unlink()
    digests = pq.read_schema(path).metadata
    write_parquet(pa.table({"u": [1]}), path, metadata=digests)
    with pytest.raises(DataError, match=f"{path.name} has no column 'i': it is of another schema"):
        log.check()
