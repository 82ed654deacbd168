"""One's own log, in Parquet and CSV files."""

from __future__ import annotations

import gzip
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.catalogue import Catalogue
from feature_store.errors import ConfigError, DataError
from feature_store.event_log import EventLog
from feature_store.ingest import ingest
from feature_store.sources.parquet import Columns, ParquetLog

ROLES = {"user": "visitor", "item": "sku", "time": "at"}


def write_log(folder: Path) -> None:
    folder.mkdir()
    for day in (2, 1):
        table = pa.table(
            {
                "visitor": pa.array([f"v{day}", "v0"]).dictionary_encode(),
                "sku": pa.array([10 * day, 11], pa.int32()),
                "at": [datetime(2024, 1, day), datetime(2024, 1, day, 5)],
                "kind": ["click", "purchase"],
                "paid": [None, Decimal("9.50")],
                "device": ["phone", None],
                "unused": [1, 2],
            }
        )
        pq.write_table(table, folder / f"day{day}.parquet", row_group_size=1)


def test_files_are_read_in_order_and_types_follow(tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    items = {
        "sku": [10, 11],
        "label": ["Tea", "Mug"],
        "tags": [["a"], []],
        "weight": [0.5, None],
        "shelf": [3, 4],
        "seen": [datetime(2024, 1, 1)] * 2,
    }
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    source = ParquetLog(
        path=str(tmp_path / "log"),
        columns=Columns(**ROLES, price="paid", event_type="kind"),
        features=("device",),
        items=str(tmp_path / "items.parquet"),
        title="label",
        kinds={"shelf": "dense"},
        ignore=("seen",),
    )
    report = ingest(source, tmp_path / "store")
    assert report.events.stored == 4 and report.events_without_item == 1
    log = EventLog.open(tmp_path / "store")
    events = pq.read_table(log.files[0]).sort_by("position")
    assert events["visitor"].to_pylist() == ["v1", "v0", "v2", "v0"]
    assert events["paid"].to_pylist() == [None, 9.5, None, 9.5]
    assert events["device"].to_pylist() == ["phone", None, "phone", None]
    kinds = {f.name: (f.kind, f.side, f.dtype) for f in log.schema.features}
    assert kinds == {
        "visitor": ("id", "user", "string"),
        "sku": ("id", "item", "int64"),
        "paid": ("dense", "context", "float64"),
        "kind": ("id", "context", "string"),
        "device": ("id", "context", "string"),
        "label": ("text", "item", "string"),
        "tags": ("bag", "item", "string"),
        "weight": ("dense", "item", "float32"),
        "shelf": ("dense", "item", "int64"),
    }
    stored = Catalogue(tmp_path / "store", log.schema).read("item").to_pydict()
    assert stored["label"] == ["Tea", "Mug"] and stored["tags"] == [["a"], []]


def test_a_pattern_picks_files_and_bad_rows_are_named_by_row(tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    bad = {"visitor": ["a", "b"], "sku": [1.0, 1.5], "at": ["2024-01-01", "2024-01-02"]}
    pq.write_table(pa.table(bad), tmp_path / "log" / "day3.parquet")
    columns = Columns(**ROLES)
    picked = ParquetLog(path=str(tmp_path / "log" / "day[12].parquet"), columns=columns)
    assert ingest(picked, tmp_path / "a").events.stored == 4
    with pytest.raises(DataError, match=r"day3\.parquet:2, column 'sku': '1.5' is not an integer"):
        ingest(ParquetLog(path=str(tmp_path / "log"), columns=columns), tmp_path / "b")


@pytest.mark.parametrize("packed", [False, True])
def test_csv(tmp_path: Path, packed: bool) -> None:
    content = b'at,sku,visitor,n\n2024-01-01 10:00:00,"a,1",v,2\n5,b,v,-1'
    path = tmp_path / ("log.csv.gz" if packed else "log.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    source = ParquetLog(path=str(path), columns=Columns(**ROLES, quantity="n"))
    ingest(source, tmp_path / "store")
    events = pq.read_table(EventLog.open(tmp_path / "store").files[0]).sort_by("position")
    assert events["sku"].to_pylist() == ["a,1", "b"]
    assert events["n"].to_pylist() == [2, -1]
    assert events["time"].to_pylist() if "time" in events.column_names else True


def test_several_csv_files_go_by_the_names_of_their_columns(tmp_path: Path) -> None:
    """In whatever order; and no file decides for the others which columns there are."""
    (tmp_path / "a.csv").write_text("visitor,sku,at\nv,a,5\n")
    (tmp_path / "b.csv").write_text("extra,at,sku,visitor\nx,6,b,w\n")
    (tmp_path / "i1.csv").write_text("sku,colour\na,red\n")
    (tmp_path / "i2.csv").write_text("size,colour,sku\n9,blue,b\n")
    columns = Columns(**ROLES)

    def source(events: str, **options: Any) -> ParquetLog:
        return ParquetLog(path=str(tmp_path / events), columns=columns, **options)

    ingest(source("?.csv", items=str(tmp_path / "i2.csv")), tmp_path / "store")
    events = pq.read_table(EventLog.open(tmp_path / "store").files[0]).sort_by("position")
    assert events.select(["visitor", "sku"]).to_pylist() == [
        {"visitor": "v", "sku": "a"},
        {"visitor": "w", "sku": "b"},
    ]
    for lacking, fields in (("i1", {"items": str(tmp_path / "i?.csv")}), ("a", {})):
        features = () if fields else ("extra",)
        with pytest.raises(DataError, match=rf"{lacking}\.csv:1: no column '(size|extra)' in the"):
            ingest(source("?.csv", features=features, **fields), tmp_path / "other")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"columns": {**ROLES, "user": "who"}},
            DataError,
            r"no column 'who'; it has: visitor, sku",
        ),
        ({"features": ["colour"]}, DataError, "no column 'colour'"),
        ({"path": "log/x*.parquet"}, DataError, "no Parquet or CSV file"),
        ({"kinds": {"nope": "id"}}, ConfigError, "kinds names 'nope'"),
        ({"title": "nope"}, ConfigError, "title names 'nope'"),
        ({"features": ["at"]}, ConfigError, r"'at' is data\.columns\.time and .*`features`"),
        (
            {"columns": {**ROLES, "item": "visitor"}},
            ConfigError,
            r"columns\.user and columns\.item",
        ),
        ({"unique": ["unused"]}, ConfigError, "unique names no event column"),
        ({"items": "twice.parquet"}, DataError, r"twice\.parquet: several columns .* 'colour'"),
        ({"users": "items.parquet"}, DataError, r"items\.parquet: no column 'visitor'"),
    ],
)
def test_options_that_do_not_fit_the_files(
    tmp_path: Path, monkeypatch, options: dict, error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "log")
    pq.write_table(pa.table({"sku": [1], "device": ["x"]}), "items.parquet")
    twice = pa.table([pa.array([1])] * 3, names=["sku", "colour", "colour"])
    pq.write_table(twice, "twice.parquet")
    source = ParquetLog.model_validate({"path": "log", "columns": ROLES, **options})
    with pytest.raises(error, match=message) as caught:
        ingest(source, tmp_path / "store")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text"])
def test_unreadable_parquet_is_a_one_line_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "log.parquet"
    count = 20_000
    table = pa.table(
        {
            "visitor": [f"v{n}" for n in range(count)],
            "sku": list(range(count)),
            "at": list(range(count)),
        }
    )
    pq.write_table(table, path, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    if damage == "flip":  # in the middle of a page: the footer still reads
        content[100:140] = bytes(40)
    damaged = {"cut": content[: len(content) // 2], "empty": b"", "text": b"a,b\n1,2\n" * 10}
    path.write_bytes(damaged.get(damage, bytes(content)))
    with pytest.raises(DataError, match=r"log\.parquet cannot be read") as caught:
        ingest(ParquetLog(path=str(path), columns=Columns(**ROLES)), tmp_path / "store")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_lists_and_places_are_roles(tmp_path: Path) -> None:
    table = pa.table(
        {
            "visitor": ["v"] * 3,
            "sku": [1, 2, 3],
            "at": [datetime(2024, 1, 1)] * 3,
            "list": ["p", "p", None],
            "row": [1, 2, None],
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    source = ParquetLog(
        path=str(tmp_path / "log.parquet"), columns=Columns(**ROLES, list="list", place="row")
    )
    schema = source.schema
    assert (schema.list, schema.place) == ("event_list", "row")  # `list` is a column of examples
    assert schema[schema.list].kind == "id" and schema[schema.place].kind == "dense"
    wrong = ParquetLog(path=str(tmp_path / "log.parquet"), columns=Columns(**ROLES, list="row"))
    assert wrong.schema["row"].kind == "id"
    twice = {"list": "row", "place": "row"}
    both = ParquetLog(path=str(tmp_path / "log.parquet"), columns=Columns(**ROLES, **twice))
    with pytest.raises(ConfigError, match="role 'list' needs a feature of kind 'id'"):
        _ = both.schema
