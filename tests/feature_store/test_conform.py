"""Values that do not fit a schema are named; nothing else is lost or changed."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.conform import LONGEST_TEXT, conform
from feature_store.errors import DataError

TARGETS = {
    "int": pa.int64(),
    "float": pa.float32(),
    "text": pa.string(),
    "time": pa.timestamp("us"),
    "bag": pa.list_(pa.string()),
    "ids": pa.list_(pa.int64()),
}


def one(values: pa.Array | list, target: pa.DataType, nullable: bool = True):
    column = values if isinstance(values, pa.Array) else pa.array(values)
    return conform(pa.table({"a": column}), pa.schema([pa.field("a", target, nullable)]))


@pytest.mark.parametrize(
    ("text", "target", "value"),
    [
        ("+5", "int", 5),
        (" -7 ", "int", -7),
        ("9223372036854775807", "int", 2**63 - 1),
        ("", "int", None),
        ("NULL", "int", None),
        ("NULL", "text", "NULL"),
        ("1e3", "float", 1000.0),
        ("978300760", "time", datetime(2000, 12, 31, 22, 12, 40)),
        ("2020-01-01T05:00:00+05:00", "time", datetime(2020, 1, 1)),
        ("2020-01-01", "time", datetime(2020, 1, 1)),
    ],
)
def test_text_is_parsed(text: str, target: str, value: object) -> None:
    assert one([text], TARGETS[target]).table["a"].to_pylist() == [value]


def test_a_text_of_more_than_the_limit_is_named() -> None:
    """In every column of texts, and in bags; where it is exactly so long it is kept."""
    longest = "é" * (LONGEST_TEXT // 2)
    columns = {"text": [longest, "a", longest + "b"], "bag": [["x"], ["x", longest + "b"], None]}
    schema = pa.schema([(name, TARGETS[name]) for name in columns])
    conformed = conform(pa.table(columns), schema)
    assert conformed.rows.tolist() == [0] and conformed.table["text"].to_pylist() == [longest]
    told = [(problem.row, problem.column, problem.reason) for problem in conformed.problems]
    reason = "is longer than 1,048,576 bytes"
    assert told == [(1, "bag", reason), (2, "text", reason)]


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("3.5", "int"),
        ("9223372036854775808", "int"),
        ("12abc", "int"),
        ("nan", "float"),
        ("inf", "float"),
        ("1e39", "float"),  # past float32
        ("yesterday", "time"),
        ("978300760000", "time"),  # milliseconds
        ("-5", "time"),
        ("99999-01-01", "time"),
        ("Action|Comedy", "bag"),  # not a list of its letters
    ],
)
def test_text_that_does_not_fit_is_named(text: str, target: str) -> None:
    checked = one(["", text], TARGETS[target])
    assert [(p.row, p.column, p.value) for p in checked.problems] == [(1, "a", text)]
    assert checked.rows.tolist() == [0]


@pytest.mark.parametrize(
    ("values", "target", "kept"),
    [
        (pa.array([2**63, 7], pa.uint64()), "int", [7]),
        (pa.array([1.5, 2.0, np.nan, None]), "int", [2, None]),
        (pa.array([1e300, 2.0]), "float", [2.0]),
        (pa.array([Decimal("1.50")]), "float", [1.5]),
        (pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")), "time", None),
        (pa.array([2**62, 0], pa.timestamp("s")), "time", [datetime(1970, 1, 1)]),
        (pa.array([b"a", b"\xff"]), "text", ["a"]),
        (pa.array([{"x": 1}]), "text", []),
        (pa.array(["a", "b"], pa.string_view()), "text", ["a", "b"]),
        (pa.array(["a", "a"]).dictionary_encode(), "text", ["a", "a"]),
        (pa.array([["1"], ["x"], None]), "ids", [[1], None]),
        (pa.array([[1.0], [1.5]]), "ids", [[1]]),
    ],
)
def test_typed_values_fit_or_are_named(values: pa.Array, target: str, kept: list | None) -> None:
    checked = one(values, TARGETS[target])
    assert len(checked.rows) + len({p.row for p in checked.problems}) == len(values)
    if kept is not None:
        assert checked.table["a"].to_pylist() == kept


def test_null_where_none_may_be_is_a_problem() -> None:
    checked = one(["", "1"], pa.int64(), nullable=False)
    assert [(p.row, p.reason) for p in checked.problems] == [(0, "is null")]


def test_padded_texts_are_other_ids_and_the_same_numbers() -> None:
    ids = one(["7", "007", "+7", None], pa.int64(), nullable=False)
    assert ids.table["a"].to_pylist() == [7]
    assert [(p.row, p.value, p.reason.split(":")[0]) for p in ids.problems] == [
        (1, "007", "is a text of other digits than an integer's own"),
        (2, "+7", "is a text of other digits than an integer's own"),
        (3, "", "is null"),
    ]
    assert one(["007"], pa.int64()).table["a"].to_pylist() == [7]


def test_columns_may_be_missing_only_where_null_is_allowed() -> None:
    table = pa.table({"a": ["1"], "stray": ["x"]})
    optional = pa.schema([pa.field("a", pa.int64()), pa.field("b", pa.float32())])
    assert conform(table, optional).table.to_pydict() == {"a": [1], "b": [None]}
    with pytest.raises(DataError, match=r"'b' is missing; the input has: a, stray"):
        conform(table, pa.schema([pa.field("b", pa.int64(), nullable=False)]))


wild = st.one_of(
    st.lists(st.one_of(st.none(), st.text(max_size=12))),
    st.lists(st.one_of(st.none(), st.from_regex(r"\A\s?[+-]?\d{1,22}(\.\d+)?(e\d+)?\Z"))),
    st.lists(st.one_of(st.none(), st.from_regex(r"\A\d{1,5}-\d\d-\d\d(T\d\d:\d\d:\d\dZ?)?\Z"))),
    st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))),
    st.lists(st.one_of(st.none(), st.floats())),
    st.lists(st.one_of(st.none(), st.binary(max_size=6))),
    st.lists(st.one_of(st.none(), st.datetimes())),
    st.lists(st.one_of(st.none(), st.lists(st.text(max_size=3), max_size=3))),
)


@settings(max_examples=300, deadline=None)
@given(wild, st.sampled_from(sorted(TARGETS)), st.booleans())
def test_every_row_is_kept_or_named(values: list, target: str, nullable: bool) -> None:
    checked = one(pa.array(values), TARGETS[target], nullable)
    named = {problem.row for problem in checked.problems}
    assert named.isdisjoint(checked.rows.tolist())
    assert named | set(checked.rows.tolist()) == set(range(len(values)))
    assert checked.table.num_rows == len(checked.rows)
    if not nullable:
        assert checked.table["a"].null_count == 0
    if target == "float":
        assert all(v is None or np.isfinite(v) for v in checked.table["a"].to_pylist())
    again = conform(checked.table, checked.table.schema)
    assert again.table.equals(checked.table)
