"""Moments from timestamps, dates, ISO 8601 and seconds since 1970; what may be another is none.

All are UTC; times without a zone are taken as UTC.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.ids import integers

_LAST_SECOND = 7_258_118_400  # 2200-01-01: later "seconds" are really milliseconds or noise
_FIRST_MILLISECOND = 100_000_000_000  # 1973 in milliseconds, the year 5138 in seconds
_FIRST_MICRO, _LAST_MICRO = -62_135_596_800_000_000, 253_402_300_799_999_999  # years 1 to 9999
_FIRST_YEAR, _LAST_YEAR = 1900, 2100  # that people write without signs between the parts
_MICROS = pa.timestamp("us")
_SECONDS = r"^\d{1,18}(\.\d*)?$"
_WRITE = "write ISO 8601, such as 2024-01-31, or timestamps"


def moments(raw: pa.Array) -> pa.Array:
    """Plain values as timestamps in microseconds; null for those that `why_no_moment` tells of."""
    kind = raw.type
    if pa.types.is_timestamp(kind):
        return _from_timestamps(raw)
    if pa.types.is_date(kind):
        return raw.cast(_MICROS)
    if not pa.types.is_string(kind):
        return _from_seconds(raw)
    is_number = pc.match_substring_regex(raw, _SECONDS)
    numbers = pc.if_else(is_number, raw, None)
    if pc.any(pc.match_substring(numbers, ".")).as_py():
        numbers = numbers.cast(pa.float64())
    return pc.coalesce(_from_seconds(numbers), _from_iso(pc.if_else(is_number, None, raw)))


def why_no_moment(value: object) -> str:
    """Why a value is none of `moments`, behind the value itself."""
    number = re.fullmatch(r"(\d+)(\.0*)?", str(value), re.ASCII)
    digits = number[1] if number else ""
    if len(digits) == 14:
        return f"may be a moment written YYYYMMDDhhmmss: {_WRITE}"
    if int(digits or 0) >= _FIRST_MILLISECOND:
        return "may be milliseconds since 1970, or smaller parts: write seconds or timestamps"
    written = {4: "a year", 6: "a month written YYYYMM", 8: "a day written YYYYMMDD"}
    if len(digits) in written:
        return f"may be {written[len(digits)]}, or seconds since 1970: {_WRITE}"
    return "is not a time (ISO 8601, or seconds since 1970)"


def unclear_seconds(numbers: pa.Array) -> pa.Array:
    """Which numbers may be milliseconds, or days written YYYYMMDD, as well as seconds."""
    return pc.or_(pc.greater_equal(numbers, _FIRST_MILLISECOND), _is_day(numbers))


def _from_timestamps(raw: pa.Array) -> pa.Array:
    # drop the zone: times with one are UTC underneath
    ticks = raw.cast(pa.int64())
    inside = ticks.is_valid()
    if raw.type.unit in ("s", "ms"):
        per_tick = {"s": 1_000_000, "ms": 1_000}[raw.type.unit]
        after = pc.greater_equal(ticks, _FIRST_MICRO // per_tick)
        inside = pc.and_(after, pc.less_equal(ticks, _LAST_MICRO // per_tick))
    known = pc.if_else(inside, raw, None)
    micros = known.cast(pa.timestamp("us", raw.type.tz), safe=False)
    return _nameable(micros.cast(pa.int64()))


def _from_iso(texts: pa.Array) -> pa.Array:
    import pandas as pd  # here alone: configs, which know sources, are read without it

    parsed = pd.to_datetime(
        texts.to_pandas().astype(object), errors="coerce", format="ISO8601", utc=True
    )
    micros = pa.array(parsed.dt.tz_localize(None).astype("datetime64[us]")).cast(pa.int64())
    return _nameable(micros)


def _nameable(micros: pa.Array) -> pa.Array:
    """Only the times that Python can name."""
    after = pc.greater_equal(micros, _FIRST_MICRO)
    inside = pc.and_(after, pc.less_equal(micros, _LAST_MICRO))
    return pc.if_else(inside, micros, None).cast(_MICROS)


def _from_seconds(raw: pa.Array) -> pa.Array:
    if pa.types.is_floating(raw.type) or pa.types.is_decimal(raw.type):
        raw = raw.cast(pa.float64())
        seconds = pc.if_else(pc.is_finite(raw), raw, None)
    else:
        seconds = integers(raw)
    inside = pc.and_(pc.greater_equal(seconds, 0), pc.less(seconds, _LAST_SECOND))
    clear = pc.and_not(inside, pc.or_(_is_day(seconds), _are_years_or_months(seconds)))
    micros = pc.multiply(pc.if_else(clear, seconds, None), 1_000_000)
    whole = pc.floor(micros).cast(pa.int64()) if pa.types.is_floating(micros.type) else micros
    return whole.cast(_MICROS)


def _is_day(numbers: pa.Array) -> pa.Array:
    """Which numbers are days YYYYMMDD: as seconds they lie in summer 1970, where no log begins."""
    day, month = _rest(numbers, 100), _rest(_over(numbers, 100), 100)
    looks = pc.and_(_within(day, 1, 31), _within(month, 1, 12))
    return pc.and_(looks, _within(_over(numbers, 10_000), _FIRST_YEAR, _LAST_YEAR))


def _are_years_or_months(numbers: pa.Array) -> pa.Array:
    """Whether all numbers are years, or all are months YYYYMM; a single one may be a place in an
    order, too."""
    years = _within(numbers, _FIRST_YEAR, _LAST_YEAR)
    of_months = _within(_over(numbers, 100), _FIRST_YEAR, _LAST_YEAR)
    months = pc.and_(of_months, _within(_rest(numbers, 100), 1, 12))
    alike = any(pc.all(looks, min_count=1).as_py() for looks in (years, months))
    return pa.repeat(pa.scalar(alike), len(numbers))


def _over(numbers: pa.Array, by: int) -> pa.Array:
    """Whole times that `by` goes into numbers of at least 0; integers stay exact."""
    times = pc.divide(numbers, by)
    return pc.floor(times) if pa.types.is_floating(times.type) else times


def _rest(numbers: pa.Array, by: int) -> pa.Array:
    return pc.subtract(numbers, pc.multiply(_over(numbers, by), by))


def _within(numbers: pa.Array, low: int, high: int) -> pa.Array:
    return pc.and_(pc.greater_equal(numbers, low), pc.less_equal(numbers, high))
