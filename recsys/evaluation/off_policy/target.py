"""The lists that a bundle would have shown in the place of those of a log.

L lists, k places.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import HISTORY, TIME, time_of
from feature_store.errors import DataError
from feature_store.ids import as_ids
from recsys.evaluation.off_policy.logged_lists import LoggedLists
from recsys.serving.recommender import Recommender

_CHUNK = 4096  # lists asked for at a time
_MICROS = 1_000_000


def lists_of_bundle(
    recommender: Recommender, lists: LoggedLists, *, exclude_seen: bool = True
) -> tuple[np.ndarray, list[str]]:
    """(Rows [L, k] of `lists.items`, -1 where a list ends and one behind the last for items that
    the log lacks; and what to beware of, in sentences.)

    A list is asked for as its user would have asked then: with the history that the bundle knows,
    up to that moment, and what the log says that the user clicked and bought since.
    """
    rows = np.full(lists.shown.shape, -1, dtype=np.int64)
    item_ids = recommender.finder.item_ids
    in_log = np.asarray(
        pc.fill_null(pc.index_in(item_ids, value_set=lists.items.cast(item_ids.type)), -1)
    ).astype(np.int64)
    in_log[in_log < 0] = len(lists.items)
    histories = _Histories(recommender, lists)
    fallbacks = 0
    for first in range(0, len(lists), _CHUNK):
        chunk = np.arange(first, min(first + _CHUNK, len(lists)))
        answers = recommender.answer(
            histories.requests(chunk), k=lists.k, exclude_seen=exclude_seen
        )
        places = answers.places.numpy()
        rows[chunk, : places.shape[1]] = np.where(places >= 0, in_log[places], -1)
        fallbacks += int(answers.fallback.sum())
    return rows, [*histories.warnings(), *_of_fallbacks(fallbacks, len(lists))]


class _Histories:
    """What is known of users at the moments of lists."""

    def __init__(self, recommender: Recommender, lists: LoggedLists) -> None:
        self._lists = lists
        kind = recommender.bundle.schema[recommender.bundle.schema.user].arrow_type
        try:
            ids = as_ids(lists.users, kind)
            items = as_ids(lists.items, recommender.finder.item_ids.type)
        except ValueError as error:
            raise DataError(f"the log is of other ids than the bundle's: {error}") from None
        self._known = recommender.known.of(ids)
        key = recommender.bundle.schema.user
        self._known = self._known.set_column(self._known.column_names.index(key), key, ids)
        self._items = items
        self._past = _Lists.of(self._known, HISTORY)
        timed = time_of(HISTORY) in self._known.column_names
        self._past_times = _Lists.of(self._known, time_of(HISTORY)) if timed else None
        user, item, time = lists.reacted
        first = np.unique(np.stack([user, item]), axis=1, return_index=True)[1]  # of an item once
        order = np.sort(first)
        order = order[np.argsort(user[order], kind="stable")]
        self._user, self._item, self._time = user[order], item[order], time[order]

    def requests(self, chunk: np.ndarray) -> pa.Table:
        """The requests of lists."""
        lists = self._lists
        of_user, moments = lists.of_user[chunk], lists.times[chunk]
        ids, times, counts = [], [], []
        for user, moment in zip(of_user.tolist(), moments.tolist(), strict=True):
            past, past_times = self._before(user, moment)
            since = int(past_times[-1]) * _MICROS if len(past_times) else -1
            first, last = np.searchsorted(self._user, [user, user + 1])
            own = slice(first, last)
            new = (self._time[own] < moment) & (self._time[own] // _MICROS * _MICROS > since)
            fresh = self._items.take(pa.array(self._item[own][new]))
            ids += [past, fresh]
            times += [past_times, self._time[own][new] // _MICROS]
            counts.append(len(past) + len(fresh))
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        values = pa.concat_arrays([part.cast(self._items.type) for part in ids])
        table = self._known.take(pa.array(of_user))
        columns = {HISTORY: pa.ListArray.from_arrays(offsets, values)}
        if self._past_times is not None:
            flat = pa.array(np.concatenate(times).astype(np.int64))
            columns[time_of(HISTORY)] = pa.ListArray.from_arrays(offsets, flat)
        if TIME not in table.column_names:
            columns[TIME] = pa.array(moments // _MICROS)
        for name, column in columns.items():
            there = name in table.column_names
            place = table.column_names.index(name) if there else table.num_columns
            put = table.set_column if there else table.add_column
            table = put(place, name, column)
        return table

    def _before(self, user: int, moment: int) -> tuple[pa.Array, np.ndarray]:
        past = self._past.row(user)
        if self._past_times is None:
            return past, np.zeros(0, np.int64)
        times = self._past_times.row(user).to_numpy()
        known = int(np.searchsorted(times * _MICROS, moment))
        return past[:known], times[:known]

    def warnings(self) -> list[str]:
        """Of a bundle that knows more than the log's moments allow."""
        if self._past_times is None:
            return [
                "the bundle does not say when its histories were: where they are newer than the "
                "log, it is asked with what came later"
            ]
        newest = pc.max(self._past_times.values).as_py()
        first = int(self._lists.times.min()) // _MICROS
        if newest is None or newest < first:
            return []
        ends, begins = (datetime.fromtimestamp(s, UTC).date() for s in (newest, first))
        return [
            f"the bundle knows events up to {ends}, and the log begins on {begins}: histories were "
            "cut at each list, but what the model has learned of later days may flatter it"
        ]


class _Lists:
    """Rows of a column of lists."""

    def __init__(self, values: pa.Array, offsets: np.ndarray) -> None:
        self.values, self._offsets = values, offsets

    @classmethod
    def of(cls, table: pa.Table, name: str) -> _Lists:
        column = table.column(name).combine_chunks()
        lengths = pc.fill_null(pc.list_value_length(column), 0)
        offsets = np.concatenate([[0], np.cumsum(np.asarray(lengths))])
        return cls(pc.list_flatten(column), offsets)

    def row(self, number: int) -> pa.Array:
        first, last = self._offsets[number : number + 2]
        return self.values[first:last]


def _of_fallbacks(fallbacks: int, lists: int) -> list[str]:
    if not fallbacks:
        return []
    return [
        f"{fallbacks:,} of {lists:,} lists are the bundle's fallback: it knows no item of the "
        "history of whoever they were for"
    ]
