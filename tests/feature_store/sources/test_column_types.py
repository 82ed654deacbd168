"""One type a column over all part files, in whatever order they come."""

from __future__ import annotations

import itertools
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest import ingest
from feature_store.sources.parquet import Columns, ParquetLog

BIG = 2**63


def write(folder: Path, *users: pa.Array, **extra: list[pa.Array]) -> ParquetLog:
    """A part file of events for each array of users, and further columns by part."""
    folder.mkdir()
    for part, ids in enumerate(users):
        columns = {"u": ids, "i": pa.array(range(len(ids))), "t": pa.array([5] * len(ids))}
        columns |= {name: values[part] for name, values in extra.items()}
        pq.write_table(pa.table(columns), folder / f"{part}.parquet")
    columns = Columns(user="u", item="i", time="t")
    return ParquetLog(path=str(folder), columns=columns, features=tuple(extra))


def users_of(source: ParquetLog, store: Path) -> list[Any]:
    ingest(source, store)
    (file,) = EventLog.open(store).files
    return pq.read_table(file).sort_by("position")["u"].to_pylist()


INTEGERS = pa.array([7, 8, 9])
TEXTS = pa.array(["007", "08", "7"])


@pytest.mark.parametrize("parts", [(INTEGERS, TEXTS), (TEXTS, INTEGERS)])
def test_texts_and_integers_are_never_merged(tmp_path: Path, parts: tuple[pa.Array, ...]) -> None:
    source = write(tmp_path / "log", *parts)
    unlike = r"'u' is of unlike types, (int64|string) in .*0\.parquet, .* in .*1\.parquet"
    with pytest.raises(DataError, match=unlike):
        ingest(source, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "silent",
    [
        pa.array([], pa.float64()),
        pa.array([None, None]),
        pa.array([None, None], pa.float64()),
        pa.array([None], pa.list_(pa.int64())),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_column_without_values_says_nothing_of_its_type(
    tmp_path: Path, silent: pa.Array, first: bool
) -> None:
    parts = (silent, TEXTS) if first else (TEXTS, silent)
    source = write(tmp_path / "log", *parts)
    assert source.schema["u"].dtype == "string"
    ingest(source, tmp_path / "store", quarantine=True)  # null ids are bad rows
    assert EventLog.open(tmp_path / "store").num_rows == 3


def test_numbers_of_one_file_may_have_become_doubles(tmp_path: Path) -> None:
    """As pandas does where one of them is missing."""
    for order, parts in enumerate(itertools.permutations([INTEGERS, pa.array([4.0])])):
        source = write(tmp_path / f"log{order}", *parts)
        assert sorted(users_of(source, tmp_path / f"store{order}")) == [4, 7, 8, 9]


def test_a_feature_of_integers_and_doubles_is_asked_about(tmp_path: Path) -> None:
    one = pa.array([1])
    source = write(tmp_path / "log", one, one, age=[one, pa.array([2.5])])
    with pytest.raises(DataError, match=r"'age' is of unlike types, int64 in .*, double in"):
        _ = source.schema
    said = source.model_copy(update={"kinds": {"age": "dense"}})
    assert said.schema["age"].dtype == "float32"


@pytest.mark.parametrize(
    ("ids", "stored"),
    [
        (pa.array([2**53 + 1, 5], pa.uint64()), [2**53 + 1, 5]),
        (pa.array([BIG + 1, 5], pa.uint64()), [str(BIG + 1), "5"]),
        (pa.array([Decimal(2**53 + 1), Decimal(5)], pa.decimal128(38, 0)), [2**53 + 1, 5]),
        (pa.array([Decimal(BIG), Decimal(5)], pa.decimal128(38, 0)), [str(BIG), "5"]),
        (pa.array([Decimal(5), Decimal(2**53 + 1)], pa.decimal128(38, 10)), [5, 2**53 + 1]),
    ],
)
def test_whole_numbers_keep_every_digit(tmp_path: Path, ids: pa.Array, stored: list[Any]) -> None:
    """Where one is beyond 64 bits all are texts of their digits."""
    small = pa.array([3], pa.uint8())
    users = users_of(write(tmp_path / "log", small, ids), tmp_path / "store")
    assert users == [type(stored[0])(3), *stored]


def test_a_double_that_lost_digits_is_no_id(tmp_path: Path) -> None:
    source = write(tmp_path / "log", pa.array([1.0, float(2**53 + 2)]))
    with pytest.raises(DataError, match=r"0\.parquet:2, column 'u': .* too large to be exact"):
        ingest(source, tmp_path / "store")


def test_lists_of_ids_keep_every_digit(tmp_path: Path) -> None:
    bags = pa.array([[2**53 + 1, None], None], pa.list_(pa.uint64()))
    source = write(tmp_path / "log", pa.array([1, 2]), tags=[bags])
    ingest(source, tmp_path / "store")
    stored = pq.read_table(EventLog.open(tmp_path / "store").files[0])["tags"].to_pylist()
    assert stored == [[2**53 + 1, None], None]
    wide = write(tmp_path / "wide", pa.array([1]), tags=[pa.array([[BIG]], pa.list_(pa.uint64()))])
    assert wide.schema["tags"].dtype == "string"


def test_events_and_catalogue_speak_of_ids_of_one_type(tmp_path: Path) -> None:
    source = write(tmp_path / "log", pa.array([1]))
    for name, ids in {"texts": pa.array(["0"]), "wide": pa.array([BIG, 0], pa.uint64())}.items():
        pq.write_table(pa.table({"i": ids}), tmp_path / f"{name}.parquet")
    (tmp_path / "items.csv").write_text("i,colour\n0,red\n")
    of_items = {
        name: source.model_copy(update={"items": str(tmp_path / name)})
        for name in ("texts.parquet", "wide.parquet", "items.csv")
    }
    with pytest.raises(DataError, match=r"'i' is of unlike types, .* in .*texts\.parquet"):
        _ = of_items["texts.parquet"].schema
    assert of_items["wide.parquet"].schema["i"].dtype == "string"
    assert of_items["items.csv"].schema["i"].dtype == "int64"
    assert ingest(of_items["items.csv"], tmp_path / "store").events_without_item == 0
