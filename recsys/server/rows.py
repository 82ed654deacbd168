"""Questions as the table of requests that a bundle reads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pyarrow as pa

from feature_store.columns import HISTORY
from feature_store.errors import DataError
from feature_store.ids import as_ids
from recsys.server.live import Live
from recsys.server.models import Features, Question


def ids_as(values: Sequence[int | str], kind: pa.DataType, field: str) -> pa.Array:
    """Ids in the type of a log's; null where the log cannot have such an id.

    Raises DataError naming the field where a value is no id of that type.
    """
    whole = pa.types.is_integer(kind)
    try:
        if set(map(type, values)) <= {int if whole else str}:
            return pa.array(values, kind)
    except (OverflowError, pa.ArrowException):
        pass  # beyond 64 bits, or a half of a sign
    try:
        return as_ids(pa.array([str(value) for value in values], pa.string()), kind)
    except (ValueError, pa.ArrowException) as error:
        raise DataError(f"{field}: {error}") from None


def lists_of(lists: Sequence[Sequence[int | str]], kind: pa.DataType, field: str) -> pa.Array:
    """Lists of ids as `ids_as`."""
    flat = ids_as(list(chain.from_iterable(lists)), kind, field)
    offsets = np.cumsum([0, *map(len, lists)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat)


def requests_of(live: Live, questions: Sequence[Question]) -> pa.Table:
    """A row for each question: what is known of its user, or the history that it brings itself.

    All must bring a history, or none. Raises DataError naming a field that cannot be read.
    """
    recommender, schema = live.recommends(), live.bundle.schema
    if questions[0].history is None:
        users = [question.user for question in questions if question.user is not None]
        ids = ids_as(users, live.user_type, "user")
        table = recommender.requests_of(ids, strict=False)
    else:
        item = live.bundle.vocabularies[schema.item].values.type
        histories = [question.history or [] for question in questions]
        table = pa.table({HISTORY: lists_of(histories, item, "history")})
        times = [question.history_time for question in questions]
        if any(time is not None for time in times):
            table = table.append_column("history_time", pa.array(times, pa.list_(pa.int64())))
    moments = [question.time for question in questions]
    if any(moment is not None for moment in moments):
        table = _with(table, "time", pa.array(moments, pa.int64()))
    return with_features(live, table, [question.features for question in questions])


def with_features(live: Live, table: pa.Table, features: Sequence[Features]) -> pa.Table:
    """A table with what questions say of their users, where they say it.

    Raises DataError for a feature that the log does not have, and for values of several types.
    """
    names = dict.fromkeys(chain.from_iterable(features))
    if not names:
        return table
    for name in names:
        if name not in live.features:
            known = ", ".join(sorted(live.features)) or "none"
            raise DataError(f"features.{name}: no feature that is read; there are: {known}")
        values = [of_one.get(name) for of_one in features]
        if name in table.column_names and not all(name in of_one for of_one in features):
            stored = table.column(name).to_pylist()
            values = [
                of_one.get(name, value) for of_one, value in zip(features, stored, strict=True)
            ]
        try:
            table = _with(table, name, pa.array(values))
        except (pa.ArrowException, OverflowError) as error:
            raise DataError(f"features.{name}: {error}") from None
    return table


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, column)
    return table.append_column(name, column)
