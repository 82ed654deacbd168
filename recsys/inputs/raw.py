"""Raw values: moments, lists of ids, and errors that name their column."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import DataError
from feature_store.times import unclear_seconds, why_no_moment
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


def seconds(moments: pa.Array) -> np.ndarray:
    """Whole seconds since 1970 of timestamps, or of numbers that are such; nulls are 0.

    Raises ValueError for numbers that may be something else.
    """
    if pa.types.is_timestamp(moments.type):
        moments = pc.floor_temporal(moments, unit="second").cast(pa.timestamp("s", "UTC"))
    elif pa.types.is_integer(moments.type) or pa.types.is_floating(moments.type):
        unclear = moments.filter(unclear_seconds(moments))
        if len(unclear):
            value = unclear[0].as_py()
            raise ValueError(f"{value} {why_no_moment(value)}")
    return moments.cast(pa.int64(), safe=False).fill_null(0).to_numpy(False).copy()


def ids_of_rows(rows: pa.Table, name: str, vocabulary: Vocabulary) -> pa.ListArray:
    """A list column of rows as raw ids."""
    column = rows.column(name).combine_chunks()
    return pa.ListArray.from_arrays(column.offsets, vocabulary.decode(column.values.to_numpy()))
