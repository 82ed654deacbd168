"""Items and users beside the log, and ids as rows of tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.schema import Feature, Schema
from feature_store.vocabulary import Vocabulary

SCHEMA = Schema(
    user="u",
    item="i",
    features=(
        Feature(name="u", kind="id", side="user"),
        Feature(name="i", kind="id", side="item", dtype="int64"),
        Feature(name="tags", kind="bag", side="item"),
    ),
)


def test_a_side_comes_back_and_an_absent_one_is_empty(tmp_path: Path) -> None:
    folder = tmp_path / "day=1"  # no column may come of a folder's name
    folder.mkdir()
    catalogue = Catalogue(folder, SCHEMA)
    catalogue.write("item", pa.table({"i": ["1", "2"], "tags": [["a", "b"], []]}))
    assert catalogue.read("item").to_pydict() == {"i": [1, 2], "tags": [["a", "b"], []]}
    assert catalogue.read("user").to_pydict() == {"u": []}


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["1", "x"], r"items, row 1, column 'i': 'x' is not an integer"),
        (["1", ""], r"items, row 1, column 'i': '' is null"),
        (["1", "1"], r"items: i 1 occurs more than once"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, ids: list[str], message: str) -> None:
    catalogue = Catalogue(tmp_path, SCHEMA)
    with pytest.raises(DataError, match=message):
        catalogue.write("item", pa.table({"i": ids}))
    assert list(tmp_path.iterdir()) == []


def test_rows_follow_the_order_of_ids_and_unknown_ids_are_row_0(tmp_path: Path) -> None:
    vocabulary = Vocabulary.fit(pa.array(["b", None, "a"]), pa.array([["c", "a"], None]))
    assert len(vocabulary) == 4
    assert vocabulary.encode(pa.array(["c", "a", "zz", None])).tolist() == [3, 1, 0, 0]
    assert vocabulary.decode(np.array([2, 0])).to_pylist() == ["b", None]
    vocabulary.save(tmp_path / "v.arrow")
    loaded = Vocabulary.load(tmp_path / "v.arrow")
    assert loaded.values.equals(vocabulary.values) and loaded.fingerprint == vocabulary.fingerprint
    torn = (tmp_path / "v.arrow").read_bytes()[:-20]
    (tmp_path / "v.arrow").write_bytes(torn)
    with pytest.raises(DataError, match="cannot be read"):
        Vocabulary.load(tmp_path / "v.arrow")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_ids_survive_the_way_there_and_back(ids: list[int]) -> None:
    column = pa.array(ids, pa.int64())
    vocabulary = Vocabulary.fit(column)
    rows = vocabulary.encode(column)
    assert rows.min() >= 1 and rows.max() == len(set(ids))
    assert vocabulary.decode(rows).to_pylist() == ids
