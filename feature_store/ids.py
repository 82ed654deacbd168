"""Whole numbers and ids of any type: exact to the last digit, or not at all.

From 2^53 on a double stands for its neighbours as well, and is no whole number here.
"""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

_LAST = (1 << 63) - 1  # of int64
_DIGITS, _FIRST_DIGITS = str(_LAST), str(-_LAST - 1)
_WHOLE = pa.decimal256(76, 0)
_PADDED = r"^(\+\d+|-?0\d+|-0)$"
PADDED = "is a text of other digits than an integer's own: as an id it would be another"


def plain(raw: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The same values as one array, of a type that all compute functions take."""
    if isinstance(raw, pa.ChunkedArray):
        raw = raw.combine_chunks() if raw.num_chunks else pa.array([], raw.type)
    if pa.types.is_dictionary(raw.type):
        raw = raw.dictionary_decode()
    if pa.types.is_large_string(raw.type) or pa.types.is_string_view(raw.type):
        return raw.cast(pa.string())
    if pa.types.is_binary_view(raw.type):
        return raw.cast(pa.binary())
    if pa.types.is_float16(raw.type):
        return raw.cast(pa.float32())
    if pa.types.is_decimal32(raw.type) or pa.types.is_decimal64(raw.type):
        return raw.cast(pa.decimal128(38, raw.type.scale))
    return raw


def integers(raw: pa.Array) -> pa.Array:
    """Plain values as int64; null where one is no whole number, or is beyond 64 bits."""
    kind = raw.type
    if pa.types.is_string(kind):
        return _parsed(raw)
    if pa.types.is_uint64(kind):
        fits = pc.less_equal(raw, pa.scalar(_LAST, kind))
        return pc.if_else(fits, raw, None).cast(pa.int64())
    if pa.types.is_decimal(kind):
        whole = pc.if_else(_is_whole(raw), raw, None).cast(_WHOLE)
        above = pc.greater_equal(whole, pa.scalar(Decimal(-_LAST - 1), _WHOLE))
        below = pc.less_equal(whole, pa.scalar(Decimal(_LAST), _WHOLE))
        return pc.if_else(pc.and_(above, below), whole, None).cast(pa.int64())
    if pa.types.is_floating(kind):
        exact = pc.and_(_is_whole(raw), pc.less(pc.abs(raw), _first_inexact(kind)))
        return pc.if_else(exact, raw, None).cast(pa.int64())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return raw.cast(pa.int64())
    return pa.nulls(len(raw), pa.int64())


def why_no_integer(value: object) -> str:
    """Why a value is none of `integers`, behind the value itself."""
    if isinstance(value, float) and value.is_integer():
        return "is too large to be exact in its type: store whole numbers as integers"
    text = str(value).strip().removeprefix("-").removeprefix("+")
    whole = value == value // 1 if isinstance(value, Decimal) else text.isdecimal()
    return "is an integer of more than 64 bits" if whole else "is not an integer"


def padded(raw: pa.Array) -> pa.Array:
    """Which plain values are texts of an integer in other digits than its own: "007", "+7", "-0".

    As ids they are others than 7 and 0, though they read as the same number.
    """
    if not pa.types.is_string(raw.type):
        return pa.repeat(pa.scalar(False), len(raw))
    texts = pc.utf8_trim_whitespace(raw)
    return pc.fill_null(pc.match_substring_regex(texts, _PADDED), False)


def as_ids(raw: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    """Ids from outside in the type of a log's, int64 or string, without space around texts.

    Null where the log cannot have such an id, as beyond 64 bits. Raises ValueError for values
    that are no ids of that type, such as "007" where ids are integers, and for fractional types
    that have lost digits.
    """
    raw = plain(raw)
    if pa.types.is_binary(raw.type) or pa.types.is_large_binary(raw.type):
        raw = raw.cast(pa.string())
    if pa.types.is_string(raw.type):
        raw = pc.utf8_trim_whitespace(raw)
    if raw.type == kind:
        return raw
    if pa.types.is_null(raw.type):
        return pa.nulls(len(raw), kind)
    if pa.types.is_floating(raw.type):
        raw = pc.if_else(pc.is_nan(raw), None, raw)  # how frames say that a number is missing
    whole = pa.types.is_integer(kind)
    for text in raw.filter(padded(raw)).to_pylist()[:1] if whole else ():
        raise ValueError(f"{text!r} {PADDED}")
    ids = integers(raw) if whole else _texts(raw)
    missing = pc.and_not(raw.is_valid(), ids.is_valid())
    for value in raw.filter(missing).to_pylist() if pc.any(missing).as_py() else ():
        why = why_no_integer(value)
        if "64 bits" not in why:
            raise ValueError(f"{value!r} {why}, as the ids of this log are")
    return ids


def _is_whole(numbers: pa.Array) -> pa.Array:
    return pc.equal(pc.floor(numbers), numbers)


def _first_inexact(kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(2.0**24 if pa.types.is_float32(kind) else 2.0**53, kind)


def _parsed(texts: pa.Array) -> pa.Array:
    fits = pc.match_substring_regex(texts, r"^[+-]?\d{1,19}$")
    digits = pc.utf8_ltrim(texts, "+")
    if (pc.max(pc.utf8_length(texts)).as_py() or 0) >= len(_DIGITS):
        size = pc.utf8_ltrim(pc.utf8_ltrim(digits, "-"), "0")
        within = pc.or_(pc.less(pc.utf8_length(size), len(_DIGITS)), pc.less_equal(size, _DIGITS))
        fits = pc.and_(fits, pc.or_(within, pc.equal(digits, _FIRST_DIGITS)))
    return pc.if_else(fits, digits, None).cast(pa.int64())


def _texts(raw: pa.Array) -> pa.Array:
    """Whole numbers as their digits; nothing is said of how a fraction would be written."""
    if pa.types.is_floating(raw.type):
        numbers = raw.drop_null()
        if len(numbers):
            raise ValueError(
                f"{numbers[0].as_py()!r} is of type {raw.type}, the ids of this log are texts"
            )
        return pa.nulls(len(raw), pa.string())
    if pa.types.is_decimal(raw.type):
        whole = _is_whole(raw)
        digits = pc.if_else(whole, raw, None).cast(_WHOLE).cast(pa.string())
        return pc.coalesce(digits, raw.cast(pa.string()))
    return raw.cast(pa.string())
