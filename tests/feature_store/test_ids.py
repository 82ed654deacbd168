"""Ids of every type arrive to the last digit, or are refused by name."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from feature_store.ids import as_ids, integers, plain
from feature_store.vocabulary import Vocabulary

EDGE = 2**53
BIG = 2**63 - 1


@pytest.mark.parametrize(
    ("values", "whole"),
    [
        (pa.array([EDGE + 1, -BIG - 1, None]), [EDGE + 1, -BIG - 1, None]),
        (pa.array([BIG, BIG + 1], pa.uint64()), [BIG, None]),
        (pa.array([Decimal(EDGE + 1)], pa.decimal128(38, 0)), [EDGE + 1]),
        (
            pa.array([Decimal(BIG), Decimal(BIG + 1), Decimal(-BIG - 1)], pa.decimal128(38, 10)),
            [BIG, None, -BIG - 1],
        ),
        (pa.array([Decimal("7.00"), Decimal("7.50")], pa.decimal64(10, 2)), [7, None]),
        (pa.array([Decimal(10) ** 60, Decimal(3)], pa.decimal256(70, 0)), [None, 3]),
        (pa.array([EDGE - 1.0, float(EDGE), 1.5, float("nan")]), [EDGE - 1, None, None, None]),
        (pa.array([16777215.0, 16777216.0], pa.float32()), [16777215, None]),
        (
            pa.array([str(EDGE + 1), "+7", "-9223372036854775808", str(BIG + 1), "7.0", "x"]),
            [EDGE + 1, 7, -BIG - 1, None, None, None],
        ),
    ],
)
def test_whole_numbers_are_exact_or_none(values: pa.Array, whole: list[int | None]) -> None:
    assert integers(plain(values)).to_pylist() == whole


@pytest.mark.parametrize(
    ("values", "kind", "ids"),
    [
        (pa.array([EDGE + 1, BIG + 1], pa.uint64()), pa.int64(), [EDGE + 1, None]),
        (pa.array([Decimal(EDGE + 1), Decimal(BIG + 1)]), pa.int64(), [EDGE + 1, None]),
        (pa.array([7.0, float("nan")]), pa.int64(), [7, None]),
        (pa.array([" 12 ", "0", "-70", str(BIG + 1)]), pa.int64(), [12, 0, -70, None]),
        (pa.array(["007", "7"]), pa.string(), ["007", "7"]),
        (pa.array([" a "], pa.large_string()), pa.string(), ["a"]),
        (pa.array([b"a"]).dictionary_encode(), pa.string(), ["a"]),
        (pa.array([BIG + 1], pa.uint64()), pa.string(), [str(BIG + 1)]),
        (pa.array([Decimal("7.00")]), pa.string(), ["7"]),
        (pa.nulls(2), pa.int64(), [None, None]),
    ],
)
def test_ids_from_outside_take_the_type_of_the_log(
    values: pa.Array, kind: pa.DataType, ids: list[object]
) -> None:
    assert as_ids(values, kind).to_pylist() == ids


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        (pa.array([1.0, 1.5]), pa.int64(), "^1.5 is not an integer"),
        (pa.array([float(EDGE + 2)]), pa.int64(), "too large to be exact in its type"),
        (pa.array([16777216.0], pa.float32()), pa.int64(), "too large to be exact"),
        (pa.array(["1", "seven"]), pa.int64(), "^'seven' is not an integer"),
        (pa.array([Decimal("1.50")]), pa.int64(), "is not an integer"),
        (pa.array(["7", " 007 "]), pa.int64(), "^'007' is a text of other digits"),
        (pa.array(["+7"]), pa.int64(), "^'\\+7' is a text of other digits"),
        (pa.array(["-0"]), pa.int64(), "^'-0' is a text of other digits"),
        (pa.array([7.0]), pa.string(), "7.0 is of type double, the ids of this log are texts"),
    ],
)
def test_what_is_no_id_is_refused(values: pa.Array, kind: pa.DataType, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_ids(values, kind)


@pytest.mark.parametrize("many", [1, 100])
def test_a_vocabulary_never_takes_an_id_for_its_neighbour(many: int) -> None:
    """Neither searched one by one nor through a hash table."""
    vocabulary = Vocabulary.fit(pa.array([EDGE, EDGE + 2, *range(50)]))
    asked = pa.chunked_array([pa.array([EDGE + 1, EDGE + 2, BIG + 7] * many, pa.uint64())])
    rows = vocabulary.encode(asked).tolist()[:3]
    assert rows == [0, len(vocabulary) - 1, 0]
    with pytest.raises(ValueError, match=r"1\.5 is not an integer"):
        vocabulary.encode(pa.array([1.5]))
