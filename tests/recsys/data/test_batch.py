"""Batch: lists, ids and columns by name, padded behind."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.batch import Batch
from recsys.data.block import Block

LISTS = st.lists(st.lists(st.integers(1, 99), max_size=6), min_size=1, max_size=8)


def table() -> pa.Table:
    return pa.table(
        {
            "user": [3, 1, 2],
            "history": [[1, 2, 3], [], [4]],
            "tags": [[], [7, 8], [9]],
            "price": [0.5, 1.5, 2.5],
            "age": [10.0, 20.0, 30.0],
            "label": [1.0, 0.0, 1.0],
        }
    )


def test_every_column_is_found_by_name() -> None:
    batch = Block.of(table()).to_batch()
    assert len(batch) == 3
    assert batch.id("user").tolist() == [3, 1, 2]
    assert batch.jagged("history").values().tolist() == [1, 2, 3, 4]
    assert batch.jagged("history").lengths().tolist() == [3, 0, 1]
    assert batch.lists is not None and batch.lists.keys() == ["history", "tags"]
    assert batch.padded("tags").tolist() == [[0, 0], [7, 8], [9, 0]]
    assert batch.dense.tolist() == [[0.5, 10.0], [1.5, 20.0], [2.5, 30.0]]
    assert batch.column("age").tolist() == [10.0, 20.0, 30.0]
    assert batch.labels is not None and batch.labels.tolist() == [[1], [0], [1]]
    assert batch.label("label").tolist() == [1, 0, 1]


def test_a_batch_without_numbers_has_dense_of_no_columns() -> None:
    batch = Block.of(table().select(["user", "history"])).to_batch()
    assert batch.dense.shape == (3, 0)
    assert batch.labels is None and batch.label_names == ()
    with pytest.raises(KeyError, match="tags"):
        batch.jagged("tags")


@settings(max_examples=80, deadline=None)
@given(LISTS, st.none() | st.integers(1, 8))
def test_padding_keeps_the_last_values_in_order(lists: list[list[int]], length: int | None) -> None:
    column = pa.array(lists, pa.list_(pa.int64()))
    batch = Block.of(pa.table({"before": column, "x": column})).to_batch()
    kept = [one if length is None else one[-length:] for one in lists]
    width = max(1, *map(len, kept))
    expected = [one + [0] * (width - len(one)) for one in kept]
    assert batch.padded("x", length).tolist() == expected


def test_moving_a_batch_keeps_all_of_it() -> None:
    batch = Block.of(table()).to_batch()
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved, Batch)
    assert moved.dense_names == ("price", "age")
    assert moved.lists is not None
    parts = (moved.ids, moved.lists.values(), moved.dense, moved.labels)
    assert all(part is not None and part.device.type == "meta" for part in parts)
    assert batch.dense.device.type == "cpu"
