"""Raw values: moments, lists of ids, and errors that name their column."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import DataError
from feature_store.ids import plain
from feature_store.times import moments, unclear_seconds, why_no_moment
from feature_store.vocabulary import Vocabulary

Vocabularies = Mapping[str, Vocabulary]


@contextmanager
def reading(column: str) -> Iterator[None]:
    """Values of the wrong type as an error that names their column."""
    try:
        yield
    except (pa.ArrowException, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"column {column!r} of the requests cannot be read: {reason}") from None


def seconds(given: pa.Array) -> np.ndarray:
    """Whole seconds since 1970 of timestamps, or of numbers that are such; nulls are 0.

    Raises ValueError for numbers that may be something else.
    """
    if pa.types.is_timestamp(given.type):
        given = pc.floor_temporal(given, unit="second").cast(pa.timestamp("s", "UTC"))
    elif pa.types.is_integer(given.type) or pa.types.is_floating(given.type):
        unclear = given.filter(unclear_seconds(given))
        if len(unclear):
            value = unclear[0].as_py()
            raise ValueError(f"{value} {why_no_moment(value)}")
    return given.cast(pa.int64(), safe=False).fill_null(0).to_numpy(False).copy()


def typed_lists(
    raw: pa.Array, kind: pa.DataType, typed: Callable[[pa.Array], pa.Array]
) -> pa.ListArray:
    """Lists whose values are made to be of a `kind`; what is null stays so.

    Raises ValueError where there are no lists, or lists of lists.
    """
    raw = plain(raw)
    if pa.types.is_null(raw.type):
        return pa.nulls(len(raw), pa.list_(kind))
    if pa.types.is_fixed_size_list(raw.type) or pa.types.is_large_list(raw.type):
        raw = raw.cast(pa.list_(raw.type.value_type))
    if not pa.types.is_list(raw.type) or pa.types.is_nested(raw.type.value_type):
        raise ValueError(f"{raw.type} is no list of values")
    lengths = pc.fill_null(pc.list_value_length(raw), 0).to_numpy()
    offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
    return pa.ListArray.from_arrays(offsets, typed(pc.list_flatten(raw)), mask=raw.is_null())


def typed_seconds(raw: pa.Array) -> pa.Array:
    """Moments as whole seconds since 1970: of timestamps, dates, texts in ISO 8601, and numbers
    that are such, as texts too; null where there is none.

    Raises ValueError for what is none of these, or may be something else.
    """
    raw = plain(raw)
    if pa.types.is_date(raw.type):
        raw = raw.cast(pa.timestamp("us"))
    if pa.types.is_string(raw.type):
        digits = pc.match_substring_regex(raw, r"^\d{1,12}(\.\d*)?$")
        numbers = typed_seconds(pc.if_else(digits, raw, None).cast(pa.float64()))
        texts = pc.if_else(digits, None, raw)
        parsed = moments(texts)
        wrong = texts.filter(pc.and_(texts.is_valid(), parsed.is_null()))
        if len(wrong):
            raise ValueError(f"{wrong[0].as_py()!r} {why_no_moment(wrong[0].as_py())}")
        return pc.coalesce(numbers, typed_seconds(parsed))
    if pa.types.is_floating(raw.type) and pc.all(pc.is_finite(raw)).as_py() is False:
        raise ValueError("a time is not finite")
    return pa.array(seconds(raw), mask=raw.is_null().to_numpy(zero_copy_only=False))


def ids_of_rows(rows: pa.Table, name: str, vocabulary: Vocabulary) -> pa.ListArray:
    """A list column of rows as raw ids."""
    column = rows.column(name).combine_chunks()
    return pa.ListArray.from_arrays(column.offsets, vocabulary.decode(column.values.to_numpy()))
