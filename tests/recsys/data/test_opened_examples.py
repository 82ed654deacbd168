"""Opened examples: texts of items by name, and a role whose rows lie in several files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from object_storage import Storage

from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples import files_of
from feature_store.storage import place
from feature_store.transfer import push
from planted import ITEMS, ROWS_OF, UNSOLD, Shape, write_planted
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig

CONFIG, IDS = ReaderConfig(batch_size=16), ("user_id",)


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


def test_examples_in_object_storage_are_those_of_the_disk(
    planted: dict[Shape, Examples], storage: Storage
) -> None:
    here, at = planted["sequences"], place(f"{storage.url}/examples")
    push(here.folder, at)  # type: ignore[arg-type]
    there = Examples(str(at))
    assert there.summary == here.summary and there.num_items == here.num_items
    assert torch.equal(there.train_events, here.train_events)
    assert there.item_texts("title").equals(here.item_texts("title"))
    assert there.vocabulary("item_id").fingerprint == here.vocabulary("item_id").fingerprint
    assert torch.equal(there.interactions().items, here.interactions().items)
    batches = [
        [batch.id("user_id").tolist() for batch in examples.reader("train", (), CONFIG, extra=IDS)]
        for examples in (here, there)
    ]
    assert batches[0] == batches[1] and len(batches[0]) > 1
