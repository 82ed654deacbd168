"""Questions as the table of requests that a bundle reads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pyarrow as pa

from feature_store.columns import HISTORY, HISTORY_TIME, TIME
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


def users_of(live: Live, questions: Sequence[Question]) -> pa.Array:
    """The ids of who asks, null for nobody in particular."""
    there = [question.user is not None for question in questions]
    told = [question.user for question in questions if question.user is not None]
    places = np.cumsum(there) - 1
    return ids_as(told, live.user_type, "user").take(pa.array(places, mask=~np.array(there)))


def requests_of(live: Live, questions: Sequence[Question]) -> pa.Table:
    """A row for each question: what is known of its user, or the history that it brings itself.

    Where a model reads times, all must bring their histories, with their times, or none. Raises
    DataError naming a field that cannot be read.
    """
    known = [place for place, question in enumerate(questions) if question.history is None]
    brought = [place for place, question in enumerate(questions) if question.history is not None]
    if not brought:
        table = _known(live, questions)
    elif not known:
        table = _brought(live, questions)
    else:
        table = pa.concat_tables(
            [
                _known(live, [questions[place] for place in known]),
                _brought(live, [questions[place] for place in brought]),
            ],
            promote_options="default",
        )
        if known[-1] > brought[0]:  # `recommend` asks for those that are known first
            order = np.argsort(known + brought)
            table = table.combine_chunks().take(pa.array(order))
    moments = [question.time for question in questions]
    if any(moment is not None for moment in moments):
        table = _with(table, TIME, pa.array(moments, pa.int64()))
    return with_features(live, table, [question.features for question in questions])


def _known(live: Live, questions: Sequence[Question]) -> pa.Table:
    """What is known of users."""
    users = [question.user for question in questions if question.user is not None]
    return live.recommends().requests_of(ids_as(users, live.user_type, "user"), strict=False)


def _brought(live: Live, questions: Sequence[Question]) -> pa.Table:
    """The histories that questions bring."""
    schema = live.bundle.users.schema
    item = live.bundle.vocabularies[live.bundle.schema.item].values.type
    lists = lists_of([question.history or [] for question in questions], item, HISTORY)
    if HISTORY in schema.names:
        lists = lists.cast(schema.field(HISTORY).type)
    table = pa.table({HISTORY: lists})
    times = [question.history_time for question in questions]
    if any(time is not None for time in times):
        table = table.append_column(HISTORY_TIME, pa.array(times, pa.list_(pa.int64())))
    return table


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
