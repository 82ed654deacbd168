"""Who asks: a known user, a history that somebody has put together, or the one changed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from feature_store.columns import HISTORY, time_of
from feature_store.errors import DataError
from recsys.explorer.cards import Cards
from recsys.inputs import History
from recsys.serving.recommender import Recommender

MOST_EVENTS = 1000


class Who(BaseModel):
    """A known user, a history of item ids, oldest first, or a user whose history is another."""

    model_config = ConfigDict(extra="forbid")

    user: str | None = Field(None, max_length=200, description="The id of a known user.")
    history: list[str] | None = Field(
        None, max_length=MOST_EVENTS, description="Ids of items, oldest first."
    )


def request_of(recommender: Recommender, cards: Cards, who: Who) -> pa.Table:
    """The request of somebody, one row.

    A history that was put together stands for all histories that a part reads. Times of events that
    the user had stay, others happened with the last of them. Raises DataError for unknown users
    and items, and for nobody.
    """
    if who.user is None and who.history is None:
        raise DataError("name a known user, or give a history of items")
    known = None if who.user is None else recommender.requests_of([who.user])
    if who.history is None:
        assert known is not None
        return known
    rows = cards.rows(pa.array(who.history, pa.string()))
    if (rows < 0).any():
        raise DataError(f"unknown item: {who.history[int((rows < 0).argmax())]}")
    items = cards.ids.take(pa.array(rows))
    if known is None:
        return pa.table({HISTORY: pa.array([items.to_pylist()], pa.list_(items.type))})
    times = _times(known, items)
    for name in _histories(recommender):
        known = _with(known, name, pa.array([items.to_pylist()], pa.list_(items.type)))
        if times is not None:
            known = _with(known, time_of(name), pa.array([times], pa.list_(pa.int64())))
    return known


def _histories(recommender: Recommender) -> set[str]:
    parts = recommender.bundle.manifest.parts.values()
    read = (asked for part in parts for asked in part.inputs)
    return {HISTORY, *(asked.name for asked in read if isinstance(asked, History))}


def _times(known: pa.Table, items: pa.Array) -> list[int] | None:
    """When the events of `items` happened: the user's as they were, others with the last."""
    beside = time_of(HISTORY)
    if beside not in known.column_names:
        return None
    had, times = (known.column(name)[0].as_py() or [] for name in (HISTORY, beside))
    when = dict(zip(had, np.asarray(times, dtype=np.int64).tolist(), strict=True))
    last = max(when.values(), default=0)
    return [when.get(item, last) for item in items.to_pylist()]


def _with(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    if name in table.column_names:
        table = table.drop_columns([name])
    return table.append_column(name, column)
