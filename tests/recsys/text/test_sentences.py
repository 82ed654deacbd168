"""Which features of items are read, and how what they hold is written."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from feature_store.errors import ConfigError
from feature_store.schema import Feature, Schema
from recsys.text.sentences import attributes_of, item_attributes

ITEMS = (
    Feature(name="sku", kind="id", side="item"),
    Feature(name="brand", kind="id", side="item"),
    Feature(name="story", kind="text", side="item"),
    Feature(name="codes", kind="bag", side="item", dtype="int64"),
    Feature(name="kinds", kind="bag", side="item"),
    Feature(name="list_price", kind="dense", side="item", dtype="float64"),
    Feature(name="title", kind="text", side="item"),
)


def schema_of(*features: Feature, title: str | None = None) -> Schema:
    user = Feature(name="user", kind="id", side="user")
    return Schema(user="user", item="sku", title=title, features=(user, *features))


def test_texts_come_first_and_the_title_before_them_and_numbers_are_read_when_named() -> None:
    schema = schema_of(*ITEMS, title="title")
    assert attributes_of(schema) == ("title", "story", "brand", "kinds")
    assert attributes_of(schema, ("codes", "title")) == ("codes", "title")
    with pytest.raises(ConfigError, match="names colour, sku; items of this log have: brand, sto"):
        attributes_of(schema, ("title", "colour", "sku"))
    with pytest.raises(ConfigError, match=r"no texts to be read: .*; it has: codes"):
        attributes_of(schema_of(ITEMS[0], ITEMS[3]))
    with pytest.raises(ConfigError, match="it has: none"):
        attributes_of(schema_of(ITEMS[0]))


def test_numbers_are_written_out_and_what_is_none_is_absent() -> None:
    table = pa.table(
        {
            "list_price": pa.array([19.99, None, math.nan, math.inf, 2.0], pa.float32()),
            "weight": pa.array([1e7, 0.125, -3.0, None, 1e-7]),
            "year": pa.array([1999, None, 0, 7, -1]),
            "codes": pa.array([[3, 5], None, [], [None], [1]]),
            "kinds": pa.array([["a"], ["b", ""], None, [], ["c"]]),
        }
    )
    names = tuple(table.column_names)
    attributes = {name: values.to_pylist() for name, values in item_attributes(table, names)}
    assert attributes == {
        "list price": ["19.99", None, None, None, "2"],
        "weight": ["10000000", "0.125", "-3", None, "0.0000001"],
        "year": ["1999", None, "0", "7", "-1"],
        "codes": ["3, 5", None, None, None, "1"],
        "kinds": ["a", "b", None, None, "c"],
    }


def test_a_table_without_rows_has_attributes_without_values() -> None:
    (attribute,) = item_attributes(pa.table({"title": pa.array([], pa.string())}), ("title",))
    assert attribute.name == "title" and len(attribute.values) == 0
