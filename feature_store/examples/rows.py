"""Blocks of encoded events -> rows of examples: who was shown what, when, and what came of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import (
    DRAW,
    HISTORY,
    ITEM_ROW,
    LABEL,
    LAST_PLACE,
    LAST_TOUCHED,
    LIST,
    LIST_PLACE,
    POSITION,
    PROFIT,
    ROLE,
    SECONDS,
    TARGET,
    TARGET_PROFIT,
    TARGET_VALUE,
    TIME,
    USER_ROW,
    VALUE,
    is_compared,
    is_label,
    raw_of,
)
from feature_store.errors import DataError
from feature_store.examples.blocks import Block, spans
from feature_store.examples.histories import histories_of
from feature_store.examples.listed import ListsOf
from feature_store.examples.spec import RowsOf
from feature_store.in_lists import in_lists
from feature_store.negatives import DrawnNegatives
from feature_store.protocols import SHOWN
from feature_store.schema import Schema

_MILLION = 1e6
_MOST = 9e12  # in millionths it still fits 64 bits


def sequence_rows(
    block: Block,
    schema: Schema,
    rows_of: RowsOf,
    roles: tuple[str, ...],
    since: int | None,
    lead: int = 1,
) -> pa.Table:
    """One row a user with two training events or more: the lists of all of them.

    With `since` (seconds) a sequence starts with the `lead` events before the first from then on:
    with the one from which that one can be learned, or with more.
    """
    trained = _has_role(block, roles)
    if since is not None:
        rows = np.flatnonzero(trained)
        late, user = block.column(SECONDS)[rows] >= since, block.user_of_row[rows]
        places = np.arange(len(rows))
        first = np.full(len(block.starts), len(rows) + lead)  # of each user, beyond all for none
        np.minimum.at(first, user[late], places[late])
        trained[rows] = places >= first[user] - lead
    lists = histories_of(block, rows_of.histories, trained, block.starts[:-1], block.starts[1:])
    users = block.column(USER_ROW)[block.starts[:-1]]
    sequences = pa.table({schema.user: users, **lists})
    return sequences.filter(pc.greater_equal(pc.list_value_length(sequences[HISTORY]), 2))


def event_rows(
    block: Block,
    schema: Schema,
    rows_of: RowsOf,
    context: tuple[str, ...],
    *,
    asked: tuple[str, ...],
    shown: tuple[str, ...],
    length: int,
    since: int | None = None,
    delay: int = 0,
    negatives: DrawnNegatives | None = None,
    lists_of: ListsOf | None = None,
) -> pa.Table:
    """One row an event whose role is `asked`: its context, and lists of the last `length` events
    before it whose role is `shown`, and of rows with labels those at least `delay` seconds older;
    of events that were shown in one list, before the first of the list. Without labels the item is
    the target. Behind every positive come the rows of its `negatives`, which differ from it in
    item and label, and were in no list; DRAW numbers them. `lists_of` finds what they are drawn
    from, for what is known of the row."""
    wanted = _has_role(block, asked)
    if rows_of.labels and LABEL in block.rows.column_names:
        wanted &= ~np.isnan(block.column(LABEL))
    if since is not None:
        wanted &= block.column(SECONDS) >= since
    rows = np.flatnonzero(wanted)
    begin = block.starts[:-1][block.user_of_row[rows]]
    end = _ends(block, delay)[rows] if rows_of.labels else rows
    known = _has_role(block, shown)
    lists = histories_of(block, rows_of.histories, known, begin, end, length)
    raw = [n for n in map(raw_of, (schema.user, *context)) if n in block.rows.column_names]
    event = block.rows.select([*_EVENT, *context, *raw]).take(pa.array(rows))
    labelled = [name for name in block.rows.column_names if is_label(name)]
    label = block.rows.select(labelled).take(pa.array(rows))
    listed = rows_of.labels and LIST in block.rows.column_names
    places = _of_lists(block, schema, rows, end, known) if listed else {}
    compared: dict[str, np.ndarray] = {}
    for name in rows_of.compared:
        values, of_user = block.column(name)[rows], _of_user(block.user_of_row[rows], places[LIST])
        compared |= in_lists(name, values, of_user, places[LAST_TOUCHED])
    table = pa.table(
        {
            schema.user: event[USER_ROW],
            **({schema.item: event[ITEM_ROW]} if rows_of.labels else {}),
            POSITION: event[POSITION],
            **({} if rows_of.labels else {TARGET: event[ITEM_ROW]}),
            TIME: event[SECONDS],
            **{name: event[name] for name in (*context, *raw)},
            **lists,
            **{name: label[name] for name in labelled},
            **places,
            **compared,
        }
    )
    if negatives is None:
        return table

    def drawn_from(places: np.ndarray) -> np.ndarray | None:
        if lists_of is None:
            return None
        return lists_of(block, known, rows[places], begin[places], end[places])

    return _with_drawn(table, block, rows, schema, negatives, drawn_from)


def _with_drawn(
    table: pa.Table,
    block: Block,
    rows: np.ndarray,
    schema: Schema,
    negatives: DrawnNegatives,
    drawn_from: Callable[[np.ndarray], np.ndarray | None],
) -> pa.Table:
    """The rows of examples made of the block's `rows`, and those of their negatives;
    `drawn_from` gives the lists of those of their places."""
    labels = table[LABEL].to_numpy() if LABEL in table.column_names else np.ones(len(rows))
    positive = np.flatnonzero(labels == 1)
    drawn = np.zeros((len(positive), negatives.per_positive), dtype=np.int64)
    users, items = block.column(USER_ROW), block.column(ITEM_ROW)
    seconds = block.column(SECONDS)
    events = rows[positive]
    user_of, at = block.user_of_row[events], seconds[events]
    lists = drawn_from(positive)
    another = np.diff(user_of, prepend=-1) != 0
    if negatives.repeats:  # what is their own differs from second to second
        another |= np.diff(at, prepend=at[:1]) != 0
    first = np.flatnonzero(another)
    for begin, end in zip(first, np.append(first, len(events))[1:], strict=True):
        every = slice(*block.starts[user_of[begin] : user_of[begin] + 2])
        own = items[every]
        if negatives.repeats:
            own = own[seconds[every] == at[begin]]
        drawn[begin:end] = negatives.draw(
            users[events[begin]],
            own,
            items[events[begin:end]],
            at[begin:end],
            None if lists is None else lists[begin:end],
        )
    place, number = np.nonzero(drawn)  # 0 where nothing could be drawn
    source = np.concatenate([np.arange(len(rows)), positive[place]])
    order = np.argsort(source, kind="stable")
    made = {
        schema.item: np.concatenate([table[schema.item].to_numpy(), drawn[place, number]]),
        LABEL: np.concatenate([labels, np.zeros(len(place))]).astype(np.float32),
        DRAW: np.concatenate([np.zeros(len(rows), np.int64), number + 1]).astype(np.int32),
    }
    # a drawn item was shown to nobody: it has no list, no place, no label of a further task
    unknown: dict[str, float] = dict.fromkeys((LIST, LIST_PLACE, LAST_PLACE, LAST_TOUCHED), 0)
    for name in table.column_names:
        of_task = is_label(name) and name != LABEL
        if name == schema.place or of_task or is_compared(name):
            unknown[name] = np.nan
    for name in unknown.keys() & set(table.column_names):
        known = table[name].to_numpy()
        made[name] = np.concatenate([known, np.full(len(place), unknown[name], known.dtype)])
    table = table.take(pa.array(source[order]))
    for name, values in made.items():
        column = pa.array(values[order])
        if name in table.column_names:
            place_of = table.column_names.index(name)
            column = column.cast(table.schema.field(name).type)
            table = table.set_column(place_of, name, column)
        else:
            table = table.append_column(name, column)
    return table


def request_rows(block: Block, schema: Schema, rows_of: RowsOf, role: str) -> pa.Table:
    """One row a user with an event of the role: what was known before it, and what came after.

    An item that occurs again among the targets is one target, worth the sum; what is unknown of
    prices and costs adds nothing.
    """
    rows = np.flatnonzero(_has_role(block, (role,)))
    user, items = block.user_of_row[rows], block.column(ITEM_ROW)[rows]
    pairs = user * (items.max(initial=0) + 1) + items
    _, first, pair = np.unique(pairs, return_index=True, return_inverse=True)
    kept = np.sort(first)
    of_user, lengths = np.unique(user[kept], return_counts=True)
    ends = np.cumsum(lengths)
    targets = {TARGET: items[kept]}
    for priced, of_event, of_target in (
        (schema.price, VALUE, TARGET_VALUE),
        (schema.cost, PROFIT, TARGET_PROFIT),
    ):
        if priced is not None:
            money = np.nan_to_num(block.column(of_event)[rows])
            worth = np.bincount(pair, weights=money, minlength=len(first))[pair][kept]
            targets[of_target] = _millionths(worth, priced)
    begin, end = block.starts[:-1][of_user], block.starts[1:][of_user]
    shown = _has_role(block, SHOWN[role])
    raw = [n for n in (raw_of(schema.user),) if n in block.rows.column_names]
    return pa.table(
        {
            schema.user: block.column(USER_ROW)[begin],
            **{n: block.rows.column(n).take(pa.array(begin)) for n in raw},
            **{n: spans(pa.array(v), ends - lengths, ends) for n, v in targets.items()},
            TIME: block.column(SECONDS)[rows[kept]][ends - lengths],
            **histories_of(block, rows_of.requested, shown, begin, end),
        }
    )


def serving_rows(block: Block, rows_of: RowsOf) -> pa.Table:
    """One row a user: USER_ROW, and lists of all events."""
    everything = np.ones(block.rows.num_rows, dtype=bool)
    begin, end = block.starts[:-1], block.starts[1:]
    lists = histories_of(block, rows_of.requested, everything, begin, end)
    return pa.table({USER_ROW: block.column(USER_ROW)[begin], **lists})


def _millionths(money: np.ndarray, column: str) -> pa.Array:
    """Exact to the millionth. Raises DataError for what is no money any more."""
    if (beyond := np.abs(money) > _MOST).any():
        raise DataError(
            f"a test purchase of {money[beyond][0]:g} is more money than can be counted (at most "
            f"{_MOST:.0e}): column {column!r} or the quantity beside it cannot be right"
        )
    rounded = pc.round(money * _MILLION, round_mode="half_towards_infinity")
    return rounded.cast(pa.int64())


_EVENT = (USER_ROW, ITEM_ROW, SECONDS, POSITION)


def _has_role(block: Block, roles: tuple[str, ...]) -> np.ndarray:
    """Which events [n] have one of the roles."""
    return pc.is_in(block.rows.column(ROLE), pa.array(roles)).to_numpy().copy()


def _ends(block: Block, delay: int) -> np.ndarray:
    """Up to which row [n] the events of a user are known to each of them: of the first one of its
    list, which says what was shown before what within a second; without a list, of its second.
    With `delay` up to the first that is less than so many seconds older than it or that one."""
    ends = _moments(block, delay)
    if LIST not in block.rows.column_names:
        return ends
    codes = block.column(LIST)
    listed = np.flatnonzero(codes)
    pairs = np.stack([block.user_of_row[listed], codes[listed]], axis=1)
    _, first, of_row = np.unique(pairs, axis=0, return_index=True, return_inverse=True)
    first = listed[first]
    ends[listed] = (ends[first] if delay else first)[of_row.ravel()]
    return ends


def _of_user(users: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Codes of lists [n] that differ from user to user, 0 for none: what one was shown does not
    depend on who else was shown it, nor on who lies in the same block."""
    _, own = np.unique(np.stack([users, lists], axis=1), axis=0, return_inverse=True)
    return np.where(lists != 0, own.ravel() + 1, 0)


def _of_lists(
    block: Block, schema: Schema, rows: np.ndarray, end: np.ndarray, known: np.ndarray
) -> dict[str, np.ndarray]:
    """Of the `rows` [m] that are asked: their list, their place in it, by the log's order where it
    tells none, and how many events before `end` [m] the user had touched the item: had chosen it,
    or done anything else that has no label, among the `known` [n] events; and where in the list
    that stands which was touched last."""
    codes = block.column(LIST)[rows]
    keys = [rows] if schema.place is None else [rows, block.column(schema.place)[rows]]
    of_user = block.user_of_row[rows]
    order = np.lexsort([*keys, codes, of_user])
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (np.diff(codes[order]) != 0) | (np.diff(of_user[order]) != 0)
    first = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.arange(len(rows)) - first + 1
    touched = known.copy()
    if LABEL in block.rows.column_names:
        touched &= block.column(LABEL) != 0
    pairs = np.stack([block.user_of_row, block.column(ITEM_ROW)], axis=1)
    pair = np.unique(pairs, axis=0, return_inverse=True)[1].ravel()
    moments = pair * (len(pair) + 1)  # what happens to a pair lies together, in order
    at_touch = np.sort((moments + np.arange(len(pair)))[touched])
    before = np.searchsorted(at_touch, moments[rows] + end) - 1
    last = np.append(at_touch, -1)[before] - moments[rows]  # below 0: of another pair
    since = np.where(last >= 0, end - last, 0)
    listed = codes != 0
    apart = place.max(initial=0) + 1
    never = apart * (end.max(initial=0) + 1)
    latest = np.where(since > 0, since * apart + place, never)
    least = np.minimum.reduceat(latest[order], np.flatnonzero(new)) if len(rows) else latest
    of_list = np.empty(len(rows), dtype=np.int64)
    of_list[order] = np.repeat(least, np.diff(np.append(np.flatnonzero(new), len(rows))))
    return {
        LIST: codes,
        LIST_PLACE: np.where(listed, place, 0),
        LAST_PLACE: np.where(listed & (of_list < never), of_list % apart, 0),
        LAST_TOUCHED: since,
    }


def _moments(block: Block, delay: int = 0) -> np.ndarray:
    """The first row [n] that has the user and the second of each row; with `delay` the first that
    is less than so many seconds older."""
    seconds = block.column(SECONDS)
    if delay and len(seconds):
        since = seconds - seconds.min() + delay
        users = block.user_of_row * (since.max() + 1)  # apart by more than any two seconds
        return np.searchsorted(users + since, users + since - delay, side="right")
    new = np.ones(len(seconds), dtype=bool)
    new[1:] = seconds[1:] != seconds[:-1]
    new[block.starts[:-1]] = True
    first = np.flatnonzero(new)
    return np.repeat(first, np.diff(np.append(first, len(seconds))))
