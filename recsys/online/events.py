"""Events as a log has them -> what a store keeps of them.

An event's key tells it from every other one of its user. It is made of the columns that the log's
schema calls `unique`, or else of user, item, time and event type, and then also of how many
events that are equal in these came before: by itself an append counts within its own rows, so that
what is sent twice is known again; a log that is synced counts within the log.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import POSITION
from feature_store.conform import conform
from feature_store.errors import DataError
from feature_store.hashing import keys_of, mix
from recsys.online.rules import Rules

OCCURRENCE = "_occurrence"  # how many events of a log are equal to this one, and before it
ARRIVED = 1 << 62  # places from here on count what came by itself, in the order it came in
ROW = np.dtype(
    [
        ("time", "<i8"),  # microseconds since 1970
        ("place", "<i8"),  # breaks ties in time: the position in the log, or ARRIVED and a count
        ("key", "<u8"),
        ("lists", "<u4"),  # bit i: it is in the i-th list
        ("item", "<i8"),  # the id, or of a text its length in bytes
    ]
)
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True)
class Events:
    """Events [n] of several users, that of event i being users[owner[i]].

    Of a store they are sorted by owner, time and place; what arrives may lie in any order.
    `rows` [n] are of the type ROW, without items, and `items` [n] their ids.
    """

    owner: np.ndarray
    rows: np.ndarray
    items: pa.Array

    def take(self, which: np.ndarray) -> Events:
        """Those at places [m], or where a mask [n] is true."""
        places = np.flatnonzero(which) if which.dtype == bool else which
        return Events(self.owner[places], self.rows[places], self.items.take(pa.array(places)))


def arriving(rules: Rules, table: pa.Table) -> tuple[pa.Array, Events]:
    """The distinct users of a table of events, sorted, and those events that the rules take.

    Raises DataError naming the column that is missing, or the row and column of the first value
    that does not fit.
    """
    log = rules.log
    if missing := [name for name in rules.asked if name not in table.column_names]:
        raise DataError(
            f"events need a column {missing[0]!r}; they have: {', '.join(table.column_names)}"
        )
    checked = conform(table, rules.read)
    if checked.problems:
        first = checked.problems[0]
        raise DataError(
            f"events cannot be added: row {first.row}, column {first.column!r}: {first.value!r} "
            f"{first.reason} ({len(checked.problems)} such values)"
        )
    events = checked.table.combine_chunks()
    rows = np.zeros(events.num_rows, ROW)
    rows["time"] = _column(events, log.time).cast(pa.int64()).to_numpy()
    rows["place"] = ARRIVED
    if POSITION in table.column_names:
        rows["place"] = table.column(POSITION).to_numpy()
    given = table.column(OCCURRENCE).to_numpy() if OCCURRENCE in table.column_names else None
    rows["key"] = _keys(rules, events, given)
    rows["lists"] = _lists(rules, events)
    taken = _taken(rules, events)
    if not taken.all():
        events, rows = events.filter(pa.array(taken)), rows[taken]
    ids = _column(events, log.user)
    distinct = pc.unique(ids)
    distinct = distinct.take(pc.sort_indices(distinct))
    owner = pc.index_in(ids, value_set=distinct).to_numpy().astype(np.int64)
    return distinct, Events(owner, rows, _column(events, log.item))


def counted(keys: np.ndarray) -> np.ndarray:
    """How many of those before it [n] are equal to each of the keys [n]."""
    order = np.argsort(keys, kind="stable")
    new = np.ones(len(keys), dtype=bool)
    new[1:] = np.diff(keys[order]) != 0
    places = np.arange(len(keys))
    counts = np.empty(len(keys), np.int64)
    counts[order] = places - np.maximum.accumulate(np.where(new, places, 0))
    return counts


def _keys(rules: Rules, events: pa.Table, occurrence: np.ndarray | None) -> np.ndarray:
    state = np.zeros(events.num_rows, np.uint64)
    with np.errstate(over="ignore"):
        for name in rules.identity:
            state = mix((state ^ _digits(_column(events, name))) + _GAMMA)
        if not rules.log.unique:
            again = counted(state) if occurrence is None else occurrence
            state = mix(state + again.astype(np.uint64) * _GAMMA)
    return state


def _digits(column: pa.Array) -> np.ndarray:
    """64 bits [n] of every value."""
    kind = column.type
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_list(kind):
        column = pa.array([str(value) for value in column.to_pylist()])
    elif pa.types.is_floating(kind):
        numbers = column.cast(pa.float64()).fill_null(0.0).to_numpy() + 0.0  # -0.0 is 0.0
        return np.where(missing, _NULL, numbers.view(np.uint64))
    elif pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    column = column.fill_null("" if pa.types.is_string(column.type) else 0)
    return np.where(missing, _NULL, keys_of(column).view(np.uint64))


def _lists(rules: Rules, events: pa.Table) -> np.ndarray:
    """Bits [n] of the lists that events are in."""
    log = rules.log
    bits = np.zeros(events.num_rows, np.uint32)
    for place, (name, types) in enumerate(rules.histories.items()):
        inside = np.ones(events.num_rows, dtype=bool)
        if types:
            assert log.event_type is not None
            inside &= _is_in(_column(events, log.event_type), types)
        if name in rules.positives and log.label is not None:
            label, least = _column(events, log.label), rules.positive_from
            positive = pc.equal(label, 1) if least is None else pc.greater_equal(label, least)
            inside &= _true(positive)
        bits |= inside.astype(np.uint32) << np.uint32(place)
    return bits


def _taken(rules: Rules, events: pa.Table) -> np.ndarray:
    """Which events [n] are taken."""
    log = rules.log
    taken = np.ones(events.num_rows, dtype=bool)
    if log.quantity is not None:
        taken &= ~_true(pc.less(_column(events, log.quantity), 0))
    if rules.event_types and log.event_type is not None:
        taken &= _is_in(_column(events, log.event_type), rules.event_types)
    if rules.min_label is not None and log.label is not None:
        taken &= _true(pc.greater_equal(_column(events, log.label), rules.min_label))
    if rules.leave_out and log.label is not None:
        taken &= ~_is_in(_column(events, log.label), rules.leave_out)
    return taken


def _is_in(column: pa.Array, values: tuple[object, ...]) -> np.ndarray:
    return _true(pc.is_in(column, value_set=pa.array(values).cast(column.type)))


def _true(mask: pa.Array) -> np.ndarray:
    return np.asarray(pc.fill_null(mask, False).to_numpy(zero_copy_only=False), dtype=bool)


def _column(events: pa.Table, name: str) -> pa.Array:
    column = events.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
