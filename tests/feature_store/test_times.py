"""Moments that can be told, and those that may be others."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pytest

from feature_store.conform import conform
from feature_store.times import moments, why_no_moment

MOMENT = datetime(2024, 3, 31, 1, 30)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1711848600]),
        pa.array([1711848600.0]),
        pa.array(["1711848600"]),
        pa.array(["1711848600.0"]),
        pa.array(["2024-03-31T01:30:00Z"]),
        pa.array(["20240331T0130"]),
        pa.array([MOMENT], pa.timestamp("ms")),
    ],
)
def test_one_moment_in_every_type(values: pa.Array) -> None:
    assert moments(values).to_pylist() == [MOMENT]


def test_parts_of_a_second_are_kept() -> None:
    texts = pa.array(["1711848600.25", "5", "2024-03-31T01:30:00.5Z", "1711848600."])
    halves = [moment.microsecond for moment in moments(texts).to_pylist()]
    assert halves == [250_000, 0, 500_000, 0]


@pytest.mark.parametrize(
    ("values", "readings"),
    [
        ([20240101], ("a day written YYYYMMDD", "seconds since 1970")),
        (["20240101"], ("a day written YYYYMMDD", "seconds since 1970")),
        ([20240101.0], ("a day written YYYYMMDD", "seconds since 1970")),
        ([5, 20240101], ("a day written YYYYMMDD", "seconds since 1970")),
        ([2023, 2024], ("a year", "seconds since 1970")),
        (["202401", "202412"], ("a month written YYYYMM", "seconds since 1970")),
        ([20240101123000], ("a moment written YYYYMMDDhhmmss",)),
        ([1711848600000], ("milliseconds since 1970",)),
        (["1711848600000"], ("milliseconds since 1970",)),
    ],
)
def test_what_may_be_something_else_is_refused_with_its_readings(
    values: list, readings: tuple[str, ...]
) -> None:
    checked = conform(pa.table({"at": values}), pa.schema([pa.field("at", pa.timestamp("us"))]))
    problem = checked.problems[-1]
    assert problem.column == "at" and problem.value == str(values[-1])
    for reading in readings:
        assert reading in problem.reason
    assert "timestamps" in problem.reason


@pytest.mark.parametrize("values", [[1, 2024], [0, 1999], [20241301], [19700132], [21010101]])
def test_places_in_an_order_and_numbers_that_are_no_days_are_seconds(values: list[int]) -> None:
    micros = moments(pa.array(values)).cast(pa.int64())
    assert micros.to_pylist() == [value * 1_000_000 for value in values]


def test_what_is_no_time_at_all_says_so() -> None:
    for value in ("yesterday", "-5", -5, 8_000_000_000, "nan", float("inf")):
        assert why_no_moment(value).startswith("is not a time"), value
