"""What a store of users' newest histories knows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import time_of
from feature_store.errors import DataError
from recsys.online.places import shown
from recsys.online.store import UserStore
from recsys.serving.requests import ids_of
from recsys.serving.users import KnownUsers


def events_of(users: KnownUsers, ids: list[str]) -> pa.Table:
    """What is known of users, an event of a list a row. Raises DataError naming unknown users."""
    wanted = ids_of(ids)
    known = users.of(wanted)
    key = _key(users)
    if missing := known.column(key).null_count:
        unknown = wanted.filter(known.column(key).is_null())
        more = f" and {missing - 1} more" if missing > 1 else ""
        raise DataError(f"unknown user: {unknown[0].as_py()}{more}")
    tables = []
    for name in _lists(users):
        lists = known.column(name).combine_chunks()
        seconds = pc.list_flatten(known.column(time_of(name)).combine_chunks())
        columns = {
            key: known.column(key).combine_chunks().take(pc.list_parent_indices(lists)),
            "list": pa.array(np.full(len(seconds), name)),
            "time": seconds.cast(pa.timestamp("s")),
            "item": pc.list_flatten(lists),
        }
        tables.append(pa.table(columns))
    return pa.concat_tables(tables).sort_by([(key, "ascending")])


def features_of(users: KnownUsers, ids: list[str]) -> list[str]:
    """What is known of users besides events, a line each."""
    own = {name for h in _lists(users) for name in (h, time_of(h))}
    names = [name for name in users.column_names if name not in own]
    rows = users.of(ids_of(ids), names).to_pylist()
    return [", ".join(f"{name}: {value}" for name, value in row.items()) for row in rows]


def about(users: KnownUsers, place: str) -> str:
    """What a store holds."""
    lists = {name: "" for name in _lists(users)}
    kept = "read only, as it was exported"
    if isinstance(users, UserStore):
        rules = users.rules
        lists = {name: f" ({', '.join(t)})" if t else "" for name, t in rules.histories.items()}
        kept = f"the newest {rules.keep:,} of each"
        kept += f", no older than {rules.days:g} days" if rules.days else ""
    told = ", ".join(f"{name}{types}" for name, types in lists.items())
    return f"{shown(place)}: {len(users.users()):,} users; lists {told}: {kept}"


def _lists(users: KnownUsers) -> list[str]:
    return [name for name in users.column_names if time_of(name) in users.column_names]


def _key(users: KnownUsers) -> str:
    """The column of ids: nothing stands before it."""
    return users.column_names[0]
