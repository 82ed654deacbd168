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


def test_whatever_is_known_of_items_is_in_the_fingerprint(tmp_path: Path) -> None:
    catalogue, seen = Catalogue(tmp_path, SCHEMA), set()
    for tags in ([["a"]], [["b"]], None):
        if tags is not None:
            catalogue.write("item", pa.table({"i": ["1"], "tags": tags}))
        else:
            catalogue.path("item").rename(catalogue.path("user"))
        seen.add(catalogue.fingerprint)
    assert len(seen) == 3 and catalogue.fingerprint in seen


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


def _many(kind: str, count: int = 3000) -> pa.Array:
    """Ids in an order of their own, far more than a request has."""
    numbers = np.random.default_rng(3).permutation(count) * 3
    return pa.array(numbers if kind == "integers" else [f"id-{number:08d}" for number in numbers])


@pytest.mark.parametrize("kind", ["integers", "strings"])
def test_a_few_ids_are_found_where_a_whole_column_finds_them(kind: str) -> None:
    for vocabulary in (Vocabulary(_many(kind)), Vocabulary.fit(_many(kind))):
        rows = vocabulary.encode(vocabulary.values)
        assert rows.tolist() == list(range(1, len(vocabulary)))
        some = np.array([2999, 0, 17, 17, 1500])
        few = vocabulary.values.take(pa.array(some))
        assert vocabulary.encode(few).tolist() == rows[some].tolist()
        strangers = pa.array([None, 1, few[1].as_py(), -5] if kind == "integers" else
                             [None, "", few[1].as_py(), "id-1"])  # fmt: skip
        assert vocabulary.encode(strangers).tolist() == [0, 0, 1, 0]
        assert vocabulary.encode(pa.chunked_array([few, strangers])).tolist() == [
            *rows[some],
            *(0, 0, 1, 0),
        ]
        assert vocabulary.encode(strangers.slice(2, 1)).tolist() == [1]
        assert vocabulary.encode(few.slice(0, 0)).tolist() == []


def test_ids_whose_keys_are_equal_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys only say where to look: here there are seven of them for all ids."""

    def coarse(ids: pa.Array) -> np.ndarray:
        return np.array([len(text) * 31 % 7 for text in ids.to_pylist()], np.int64)

    monkeypatch.setattr("feature_store.vocabulary.keys_of", coarse)
    texts = ["x" * (number % 40) + str(number) for number in range(500)]
    vocabulary = Vocabulary(pa.array(texts))
    for place in (0, 7, 250, 499):
        assert vocabulary.encode(pa.array([texts[place]])).tolist() == [place + 1]
    assert vocabulary.encode(pa.array(["nobody", "xx9999"])).tolist() == [0, 0]


@pytest.mark.parametrize("ids", [pa.array([5, 3, 9]), pa.array(["b", "a", "c"])])
def test_all_ids_of_a_vocabulary_have_its_rows(ids: pa.Array) -> None:
    vocabulary = Vocabulary(ids)
    own = pa.chunked_array([ids.slice(0, 1), ids.slice(1)])
    assert vocabulary.encode(own).tolist() == [1, 2, 3]
    assert vocabulary.encode(ids.take(pa.array([2, 0, None]))).tolist() == [3, 1, 0]
    assert vocabulary.encode(pa.array([], ids.type)).tolist() == []
    assert Vocabulary(ids.slice(0, 0)).encode(ids.slice(0, 0)).tolist() == []


def test_a_vocabulary_is_read_once_for_many_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    from feature_store import vocabulary as module

    read = []
    keys_of = module.keys_of
    monkeypatch.setattr(module, "keys_of", lambda ids: read.append(len(ids)) or keys_of(ids))
    vocabulary = Vocabulary(_many("strings"))
    for _ in range(3):
        vocabulary.encode(vocabulary.values.slice(5, 2))
    assert read == [3000, 2, 2, 2]
