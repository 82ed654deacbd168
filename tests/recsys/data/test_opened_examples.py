"""Opened examples: texts of items by name, and a role whose rows lie in several files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples import files_of
from planted import ITEMS, ROWS_OF, UNSOLD, Shape, write_planted
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig


def test_texts_are_read_by_name_and_those_not_written_are_refused(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples = planted["sequences"]
    texts = examples.item_texts("title").to_pylist()
    assert texts[:2] == [None, "Item number 0"] and len(texts) == 1 + ITEMS + UNSOLD
    with pytest.raises(DataError, match="no item text 'colour'; it has: title, blurb, genre"):
        examples.item_texts("colour")
    attributes = examples.item_attributes(("words", "genre", "list_price"))
    assert attributes.column_names == ["words", "genre", "list_price"]
    raw = Catalogue(planted_log.folder, planted_log.schema).read("item").to_pylist()
    as_written = {row["item_id"]: row for row in raw}
    ids = examples.vocabulary("item_id").decode(np.arange(len(texts))).to_pylist()
    for row, item in zip(attributes.to_pylist(), ids, strict=True):
        assert row == {name: as_written.get(item, {}).get(name) for name in row}
    monkeypatch.setitem(ROWS_OF, "sequences", replace(ROWS_OF["sequences"], texts=False))
    without = write_planted(planted_log, tmp_path / "e", "sequences")
    with pytest.raises(DataError, match="holds no item text 'title'; it has: none"):
        without.item_texts("title")


def test_rows_in_several_files_are_read_as_one(
    planted: dict[Shape, Examples], tmp_path: Path
) -> None:
    folder = shutil.copytree(planted["sequences"].folder, tmp_path / "e")
    (file,) = files_of(folder, "test")
    rows = pq.read_table(file, partitioning=None)
    pq.write_table(rows.slice(0, 40), file)
    pq.write_table(rows.slice(40), file.with_name("00001.parquet"))
    ids = [
        batch.id("user_id").tolist()
        for batch in Examples(folder).reader(
            "test", (), ReaderConfig(batch_size=rows.num_rows), extra=("user_id",)
        )
    ]
    assert ids == [rows["user_id"].to_pylist()]
