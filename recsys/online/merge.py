"""What is kept of users, and what arrives -> what is kept from then on.

An event is kept as long as fewer than `keep` events of one of its lists are strictly newer. That
says nothing of the order of arrival, so that late events, repeated ones and any cut into appends
come to the same; an event that was forgotten is forgotten again when it comes again, and events of
the moment at which a list is full are all kept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from recsys.online.events import ARRIVED, Events


class Merged(NamedTuple):
    """What is kept of U users: their events, the newest moment [U] of each, which users [U] are not
    as they were, and how many events are new."""

    events: Events
    newest: np.ndarray
    changed: np.ndarray
    added: int


def merge(
    held: Events, newest: np.ndarray, arriving: Events, *, lists: int, keep: int, since: int
) -> Merged:
    """Merge what arrives into what is held of U users, of whom `newest` [U] is the newest moment.

    Events before `since`, in microseconds, are forgotten.
    """
    users = len(newest)
    both = Events(
        np.concatenate([held.owner, arriving.owner]),
        np.concatenate([held.rows, _after(held, arriving, users)]),
        pa.concat_arrays([held.items, arriving.items.cast(held.items.type)]),
    )
    fresh = np.arange(len(both.owner)) >= len(held.owner)
    first, placed = _distinct(both, fresh)
    both, fresh = both.take(first), fresh[first]
    order = np.lexsort([both.rows["place"], both.rows["time"], both.owner])
    both, fresh = both.take(order), fresh[order]
    seen = newest.copy()
    late = both.rows["time"] >= since
    np.maximum.at(seen, both.owner[late], both.rows["time"][late])
    kept = late & _wanted(both, lists, keep)
    changed = np.zeros(users, dtype=bool)
    changed[both.owner[fresh == kept]] = True  # one is added, or one that was held is not kept
    changed[placed] = True
    changed |= seen != newest
    return Merged(both.take(kept), seen, changed, int((fresh & kept).sum()))


def _after(held: Events, arriving: Events, users: int) -> np.ndarray:
    """The rows that arrive, those without a position behind all that came by itself before."""
    rows = arriving.rows.copy()
    alone = np.flatnonzero(rows["place"] >= ARRIVED)
    last = np.full(users, ARRIVED - 1)
    np.maximum.at(last, held.owner, held.rows["place"])
    owner = arriving.owner[alone]
    order = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[order], owner[order])
    rows["place"][alone[order]] = last[owner[order]] + 1 + np.arange(len(order)) - first
    return rows


def _distinct(both: Events, fresh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places of distinct events, held ones before others; and the users of whom a held one,
    which had come by itself, now has its position in a log, which is set."""
    order = np.lexsort([both.rows["key"], both.owner])  # stable: what is held comes first
    owner, key = both.owner[order], both.rows["key"][order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(owner) != 0) | (key[1:] != key[:-1])
    first = order[new]
    group = np.cumsum(new) - 1
    place = np.full(len(first), np.iinfo(np.int64).max)
    np.minimum.at(place, group, both.rows["place"][order])
    moved = place != both.rows["place"][first]
    both.rows["place"][first] = place
    return np.sort(first), both.owner[first][moved & ~fresh[first]]


def _wanted(events: Events, lists: int, keep: int) -> np.ndarray:
    """Which of the sorted events [n] have fewer than `keep` strictly newer ones in one of their
    lists."""
    count = len(events.owner)
    wanted = np.zeros(count, dtype=bool)
    if not count:
        return wanted
    another = np.diff(events.owner) != 0
    apart = another | (np.diff(events.rows["time"]) != 0)
    last_of_moment = _ends(apart)
    last_of_user = _ends(another)
    for place in range(lists):
        inside = (events.rows["lists"] >> np.uint32(place)) & np.uint32(1) == 1
        so_far = np.cumsum(inside)
        newer = so_far[last_of_user] - so_far[last_of_moment]
        wanted |= inside & (newer < keep)
    return wanted


def _ends(apart: np.ndarray) -> np.ndarray:
    """The last place [n] of the run that each place is in; `apart` [n - 1] says where runs end."""
    ends = np.append(np.flatnonzero(apart), len(apart))
    return ends[np.searchsorted(ends, np.arange(len(apart) + 1))]
