"""Columns of any type -> columns of the schema, with every value that does not fit named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import DataError
from feature_store.ids import PADDED, integers, padded, plain, why_no_integer
from feature_store.times import moments, why_no_moment

LONGEST_TEXT = 1 << 20  # bytes of a text, and of each in a bag: ids and titles are far shorter
_EMPTY = ("", "NULL", "null", "\\N")
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


@dataclass(frozen=True)
class Problem:
    """One value that does not fit: the row within its table, column, reason and raw value."""

    row: int
    column: str
    reason: str
    value: str


@dataclass
class Conformed:
    """The rows that fit, in their order, which rows those are, and what is wrong with the rest."""

    table: pa.Table
    rows: np.ndarray  # [good] row numbers in the input
    problems: list[Problem] = field(default_factory=list)


def conform(table: pa.Table, schema: pa.Schema) -> Conformed:
    """Cast `table` to `schema`, setting aside the rows that cannot be cast.

    Text is parsed: integers, finite numbers, times as ISO 8601 or seconds since 1970 (UTC).
    An empty text is null. Integers that may not be null are ids, which "007" is not. Columns that
    the schema does not name are left out; a nullable column that the table lacks is filled with
    nulls. No text is longer than LONGEST_TEXT.

    Raises:
        DataError: a column that may not be null is missing altogether.
    """
    bad = np.zeros(table.num_rows, dtype=bool)
    problems: list[Problem] = []
    columns = []
    for target in schema:
        if target.name not in table.column_names:
            if not target.nullable:
                have = ", ".join(table.column_names)
                raise DataError(f"column {target.name!r} is missing; the input has: {have}")
            columns.append(pa.nulls(table.num_rows, target.type))
            continue
        raw = plain(table.column(target.name))
        cast, wrong = _cast(raw, target.type)
        problems += _describe(raw, wrong, target)
        if pa.types.is_integer(target.type) and not target.nullable:
            other = np.asarray(padded(raw)) & ~wrong
            problems += _describe(raw, other, target, PADDED)
            wrong |= other
        long = _too_long(cast)
        if long.any():
            problems += _describe(raw, long, target, f"is longer than {LONGEST_TEXT:,} bytes")
            wrong |= long
        bad |= wrong
        if not target.nullable:
            null = np.asarray(cast.is_null()) & ~wrong
            problems += _describe(raw, null, target, "is null")
            bad |= null
        columns.append(cast)
    good = pa.Table.from_arrays(columns, schema=pa.schema([f.with_nullable(True) for f in schema]))
    rows = np.flatnonzero(~bad)
    if len(rows) < table.num_rows:
        good = good.take(pa.array(rows))
    problems.sort(key=lambda p: p.row)
    return Conformed(good.cast(schema), rows, problems)


def _too_long(cast: pa.Array) -> np.ndarray:
    """Which values are, or hold, texts of more than LONGEST_TEXT bytes."""
    long = np.zeros(len(cast), dtype=bool)
    if pa.types.is_list(cast.type):
        lengths = pc.fill_null(pc.list_value_length(cast), 0).to_numpy()
        inner = _too_long(pc.list_flatten(cast))  # of lists that are there, as `lengths`
        long[np.repeat(np.arange(len(cast)), lengths)[inner]] = True
    elif pa.types.is_string(cast.type):
        lengths = pc.fill_null(pc.binary_length(cast), 0)
        long |= np.asarray(pc.greater(lengths, LONGEST_TEXT))
    return long


def _describe(
    raw: pa.Array, mask: np.ndarray, target: pa.Field, reason: str | None = None
) -> list[Problem]:
    rows = np.flatnonzero(mask)
    values = python_values(raw.filter(pa.array(mask)))
    return [
        Problem(
            int(row),
            target.name,
            reason or _why_not(value, target.type),
            "" if value is None else str(value),
        )
        for row, value in zip(rows, values, strict=True)
    ]


def python_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of a column; numbers for times, where Python has no such time."""
    try:
        return column.to_pylist()
    except (OverflowError, ValueError):
        return column.cast(pa.int64()).to_pylist()


def _why_not(value: Any, kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return why_no_integer(value)
    if pa.types.is_timestamp(kind):
        return why_no_moment(value)
    if pa.types.is_floating(kind):
        return "is not a finite number"
    return f"is not a {kind}"


def _cast(raw: pa.Array, target: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """The cast array (null where impossible) and a mask of the values that are impossible."""
    present = raw.is_valid()
    raw = _plain(raw)
    if pa.types.is_string(raw.type):
        raw = pc.utf8_trim_whitespace(raw)
        empty = pc.is_in(raw, pa.array([""] if pa.types.is_string(target) else _EMPTY))
        raw = pc.if_else(empty, None, raw)
        present = pc.and_not(present, empty)
    if pa.types.is_null(raw.type):
        cast = pa.nulls(len(raw), target)
    elif pa.types.is_list(target):
        cast = _list(raw, target)
    elif pa.types.is_timestamp(target):
        cast = moments(raw).cast(target)
    elif pa.types.is_string(target):
        cast = _text(raw)
    elif pa.types.is_integer(target):
        cast = integers(raw).cast(target)
    else:
        cast = _number(raw, target)
    return cast, np.asarray(pc.and_(present, cast.is_null()))


def _plain(raw: pa.Array) -> pa.Array:
    """The same values in a type that all compute functions take; null where there is none."""
    raw = plain(raw)
    if pa.types.is_binary(raw.type) or pa.types.is_large_binary(raw.type):
        return _text(raw)
    return raw


def _list(raw: pa.Array, target: pa.DataType) -> pa.Array:
    """Lists of which every value fits."""
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(kind(raw.type) for kind in kinds):
        return pa.nulls(len(raw), target)
    lists = raw.cast(pa.list_(raw.type.value_type))
    cast, wrong = _cast(pc.list_flatten(lists), target.value_type)
    broken = np.zeros(len(lists), dtype=bool)
    broken[pc.list_parent_indices(lists).to_numpy()[wrong]] = True
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    absent = pa.array(broken | np.asarray(lists.is_null()))
    return pa.ListArray.from_arrays(offsets, cast, mask=absent).cast(target)


def _text(raw: pa.Array) -> pa.Array:
    try:
        return raw.cast(pa.string())
    except pa.ArrowNotImplementedError:
        return pa.nulls(len(raw), pa.string())
    except pa.ArrowInvalid:  # bytes, some of which are no text
        return pa.array([_decoded(value) for value in raw.to_pylist()], pa.string())


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _number(raw: pa.Array, target: pa.DataType) -> pa.Array:
    if pa.types.is_string(raw.type):
        raw = pc.if_else(pc.match_substring_regex(raw, _NUMBER), raw, None).cast(pa.float64())
    elif not (
        pa.types.is_integer(raw.type)
        or pa.types.is_floating(raw.type)
        or pa.types.is_decimal(raw.type)
    ):
        return pa.nulls(len(raw), target)
    numbers = raw.cast(target, safe=False)  # too large for the target becomes infinite
    return pc.if_else(pc.is_finite(numbers), numbers, None)
