"""AmazonElectronics_x1: rows in its layout, and what becomes of those that break it."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from feature_store.catalogue import Catalogue
from feature_store.columns import HISTORY
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, files_of, write_examples
from feature_store.ingest import ingest
from feature_store.protocols import Fixed
from feature_store.sources.amazon_electronics import AmazonElectronics
from feature_store.splits import make_split
from feature_store.vocabulary import Vocabulary, vocabulary_file

HEAD = "label,user_id,item_id,cate_id,item_history,cate_history"
TRAIN = [  # in no order, as the publisher shuffled them
    "0,7,99,4,10^20,1^2",
    "1,7,20,2,10,1",
    "1,7,30,3,10^20,1^2",
    "0,7,98,4,10,1",
    "1,8,50,1,40,2",
    "0,8,60,1,40,2",
]
TEST = [
    "1,7,10,1,10^20^30,1^2^3",
    "0,7,97,4,10^20^30,1^2^3",
    "1,8,10,1,40^50,2^1",
    "0,8,20,2,40^50,2^1",
]


def write(folder: Path, train: list[str], test: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train.csv", train), ("test.csv", test)):
        (folder / name).write_text("".join(f"{row}\n" for row in [HEAD, *rows]))
    return folder


def test_histories_of_rows_are_those_of_the_file(tmp_path: Path) -> None:
    """Made anew of events, each list is the row's own, and the review before the test's is
    validation; a first review is asked by no row."""
    source = AmazonElectronics(path=write(tmp_path / "raw", TRAIN, TEST))
    ingest(source, tmp_path / "log")
    log = EventLog.open(tmp_path / "log")
    catalogue = Catalogue(log.folder, log.schema)
    rows_of = RowsOf(per="event", labels=True, histories={HISTORY: ("reviewed",)})
    with Engine(EngineConfig(threads=1)) as engine:
        split = make_split(engine, log, Fixed())
        write_examples(engine, split, catalogue, tmp_path / "examples", rows_of=rows_of)
    vocabularies = {
        name: Vocabulary.load(tmp_path / "examples" / "vocabulary" / vocabulary_file(name))
        for name in ("user_id", "item_id")
    }
    rows_of_role: dict[str, list[str]] = {}
    for role in ("train", "validation", "test"):
        rows_of_role[role] = []
        for file in files_of(tmp_path / "examples", role):
            for row in pq.read_table(file).to_pylist():
                user = vocabularies["user_id"].decode([row["user_id"]])[0]
                item = vocabularies["item_id"].decode([row["item_id"]])[0]
                history = vocabularies["item_id"].decode(row[HISTORY])
                shown = "^".join(str(item) for item in history)
                rows_of_role[role].append(f"{row['label']:.0f},{user},{item},{shown}")
    asked = [re.sub(r"^(\d,\d+,\d+),\d+,([^,]+),.*", r"\1,\2", row) for row in TRAIN]
    of_validation = [row for row in asked if row.endswith((",10^20", ",40"))]
    assert sorted(rows_of_role["validation"]) == sorted(of_validation)
    assert sorted(rows_of_role["train"]) == sorted(row for row in asked if row not in of_validation)
    assert sorted(rows_of_role["test"]) == sorted(
        ["1,7,10,10^20^30", "0,7,97,10^20^30", "1,8,10,40^50", "0,8,20,40^50"]
    )
    items = catalogue.read("item").to_pylist()
    assert {row["item_id"]: row["cate_id"] for row in items} == {
        **{10: 1, 20: 2, 30: 3, 40: 2, 50: 1},
        **{60: 1, 97: 4, 98: 4, 99: 4},
    }


def test_broken_rows_are_named_by_line_and_column(tmp_path: Path) -> None:
    broken = ["2,7,20,2,10,1", "1,x,20,2,10,1", "1,9,20,2,10^,1", "1,9,20,2,10^11,1"]
    source = AmazonElectronics(path=write(tmp_path / "raw", [*TRAIN, *broken], TEST))
    bad = [row for chunk in source.read_events() for row in chunk.bad]
    assert [(row.line, row.column) for row in bad] == [
        (8, "label"), (9, "user_id"), (10, "item_history"), (11, "cate_history"),
    ]  # fmt: skip


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    (write(tmp_path / "raw", TRAIN, TEST) / "test.csv").unlink()
    with pytest.raises(DataError, match=r"has no test\.csv: give the folder or zip"):
        list(AmazonElectronics(path=tmp_path / "raw").read_events())


def test_the_published_parts_may_be_kept(tmp_path: Path) -> None:
    for validation in (True, False):
        source = AmazonElectronics(path=write(tmp_path, TRAIN, TEST), validation=validation)
        tables = [chunk.table for chunk in source.read_events()]
        roles = [role for table in tables for role in table["published_role"].to_pylist()]
        assert roles.count("test") == len(TEST)
        assert roles.count("validation") == (4 if validation else 0)
