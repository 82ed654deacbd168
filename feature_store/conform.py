"""Columns of any type -> columns of the schema, with every value that does not fit named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import DataError

_LAST_SECOND = 7_258_118_400  # 2200-01-01: later "seconds" are really milliseconds or noise
_EMPTY = ("", "NULL", "null", "\\N")
_FIRST_MICRO, _LAST_MICRO = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999
_LARGEST = "9223372036854775807"  # int64


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
    An empty text is null. Columns that the schema does not name are left out; a nullable
    column that the table lacks is filled with nulls.

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
        raw = table.column(target.name).combine_chunks()
        if isinstance(raw, pa.ChunkedArray):  # zero chunks
            raw = pa.array([], raw.type)
        if pa.types.is_string_view(raw.type):  # which little can be done with
            raw = raw.cast(pa.string())
        cast, wrong = _cast(raw, target.type)
        reasons = [(wrong, f"is not {_words(target.type)}")]
        if not target.nullable:
            null = np.asarray(cast.is_null()) & ~wrong
            reasons.append((null, "is null"))
        for mask, reason in reasons:
            problems += _describe(raw, mask, target.name, reason)
            bad |= mask
        columns.append(cast)
    good = pa.Table.from_arrays(columns, schema=pa.schema([f.with_nullable(True) for f in schema]))
    rows = np.flatnonzero(~bad)
    if len(rows) < table.num_rows:
        good = good.take(pa.array(rows))
    problems.sort(key=lambda p: p.row)
    return Conformed(good.cast(schema), rows, problems)


def _describe(raw: pa.Array, mask: np.ndarray, column: str, reason: str) -> list[Problem]:
    rows = np.flatnonzero(mask)
    values = python_values(raw.filter(pa.array(mask)))
    return [
        Problem(int(row), column, reason, "" if value is None else str(value))
        for row, value in zip(rows, values, strict=True)
    ]


def python_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of a column; numbers for times, where Python has no such time."""
    try:
        return column.to_pylist()
    except (OverflowError, ValueError):
        return column.cast(pa.int64()).to_pylist()


def _words(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "a time (ISO 8601, or seconds since 1970)"
    if pa.types.is_integer(kind):
        return "an integer"
    if pa.types.is_floating(kind):
        return "a finite number"
    return f"a {kind}"


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
        cast = _time(raw, target)
    elif pa.types.is_string(target):
        cast = _text(raw)
    elif pa.types.is_integer(target):
        cast = _integer(raw).cast(target)
    else:
        cast = _number(raw, target)
    return cast, np.asarray(pc.and_(present, cast.is_null()))


def _plain(raw: pa.Array) -> pa.Array:
    """The same values in a type that all compute functions take; null where there is none."""
    if pa.types.is_dictionary(raw.type):
        raw = raw.dictionary_decode()
    if pa.types.is_large_string(raw.type):
        return raw.cast(pa.string())
    if pa.types.is_binary(raw.type) or pa.types.is_large_binary(raw.type):
        return _text(raw)
    if pa.types.is_float16(raw.type):
        return raw.cast(pa.float64())
    if pa.types.is_decimal(raw.type):
        return raw.cast(pa.float64())
    if pa.types.is_uint64(raw.type):
        fits = pc.less_equal(raw, pa.scalar(int(_LARGEST), pa.uint64()))
        return pc.if_else(fits, raw, None).cast(pa.int64())
    return raw


def _list(raw: pa.Array, target: pa.DataType) -> pa.Array:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(kind(raw.type) for kind in kinds):
        return pa.nulls(len(raw), target)
    try:
        return raw.cast(target)
    except pa.ArrowException:
        pass
    parts = []
    for row in range(len(raw)):  # slow, and only reached by lists that do not cast as a whole
        try:
            parts.append(raw.take(pa.array([row])).cast(target))
        except pa.ArrowException:
            parts.append(pa.nulls(1, target))
    return pa.concat_arrays(parts)


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


def _integer(raw: pa.Array) -> pa.Array:
    if pa.types.is_string(raw.type):
        fits = pc.match_substring_regex(raw, r"^[+-]?\d{1,19}$")
        digits = pc.utf8_ltrim(raw, "+")
        if (pc.max(pc.utf8_length(raw)).as_py() or 0) >= len(_LARGEST):
            size = pc.utf8_ltrim(pc.utf8_ltrim(digits, "-"), "0")
            within = pc.or_(
                pc.less(pc.utf8_length(size), len(_LARGEST)), pc.less_equal(size, _LARGEST)
            )
            fits = pc.and_(fits, within)
        return pc.if_else(fits, digits, None).cast(pa.int64())
    if pa.types.is_floating(raw.type):
        whole = pc.and_(pc.equal(raw, pc.floor(raw)), pc.less(pc.abs(raw), 2.0**53))
        return pc.if_else(whole, raw, None).cast(pa.int64())
    if pa.types.is_integer(raw.type) or pa.types.is_boolean(raw.type):
        return raw.cast(pa.int64())
    return pa.nulls(len(raw), pa.int64())


def _number(raw: pa.Array, target: pa.DataType) -> pa.Array:
    if pa.types.is_string(raw.type):
        import pandas as pd  # here alone: configs, which know sources, are read without it

        numbers = pd.to_numeric(raw.to_pandas().astype(object), errors="coerce")
        raw = pa.array(np.asarray(numbers, dtype=np.float64), from_pandas=True)
    elif not (pa.types.is_integer(raw.type) or pa.types.is_floating(raw.type)):
        return pa.nulls(len(raw), target)
    numbers = raw.cast(target, safe=False)  # too large for the target becomes infinite
    return pc.if_else(pc.is_finite(numbers), numbers, None)


def _time(raw: pa.Array, target: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(raw.type):
        # drop the zone: times with one are UTC underneath, times without are taken as UTC
        ticks = raw.cast(pa.int64())
        inside = ticks.is_valid()
        if raw.type.unit in ("s", "ms"):
            per_tick = {"s": 1_000_000, "ms": 1_000}[raw.type.unit]
            after = pc.greater_equal(ticks, _FIRST_MICRO // per_tick)
            inside = pc.and_(after, pc.less_equal(ticks, _LAST_MICRO // per_tick))
        known = pc.if_else(inside, raw, None)
        micros = known.cast(pa.timestamp("us", raw.type.tz), safe=False)
        return _nameable(micros.cast(pa.int64())).cast(target)
    if pa.types.is_date(raw.type):
        return raw.cast(target)
    if pa.types.is_string(raw.type):
        import pandas as pd

        digits = pc.match_substring_regex(raw, r"^\d{1,18}$")
        seconds = pc.if_else(digits, raw, None)
        rest = pc.if_else(digits, None, raw)
        parsed = pd.to_datetime(
            rest.to_pandas().astype(object), errors="coerce", format="ISO8601", utc=True
        )
        micros = pa.array(parsed.dt.tz_localize(None).astype("datetime64[us]")).cast(pa.int64())
        iso = _nameable(micros).cast(target)
        return pc.coalesce(_seconds(seconds, target), iso)
    return _seconds(raw, target)


def _nameable(micros: pa.Array) -> pa.Array:
    """Only the times that Python can name."""
    after = pc.greater_equal(micros, _FIRST_MICRO)
    return pc.if_else(pc.and_(after, pc.less_equal(micros, _LAST_MICRO)), micros, None)


def _seconds(raw: pa.Array, target: pa.DataType) -> pa.Array:
    if pa.types.is_floating(raw.type):
        raw = raw.cast(pa.float64())
        seconds = pc.if_else(pc.is_finite(raw), raw, None)
    else:
        seconds = _integer(raw)
    inside = pc.and_(pc.greater_equal(seconds, 0), pc.less(seconds, _LAST_SECOND))
    micros = pc.multiply(pc.if_else(inside, seconds, None), 1_000_000)
    return (
        pc.floor(micros).cast(pa.int64()).cast(target)
        if pa.types.is_floating(micros.type)
        else micros.cast(target)
    )
