"""Synthetic: a marketplace whose truth is known, of any size, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from feature_store.schema import TIME_TYPE, Feature, Schema
from feature_store.sources.base import RawChunk, Source
from feature_store.sources.synthetic_log import EVENT_TYPES, IMPRESSION, RETURN, Rows, simulate
from feature_store.sources.synthetic_truth import START_S, save_truth
from feature_store.sources.synthetic_words import ITEM_BLOCK, Words
from feature_store.sources.synthetic_world import (
    AGE_BANDS,
    COUNTRIES,
    DAY_S,
    USER_BLOCK,
    Items,
    Users,
    World,
)

_VERSION = 2  # of what is generated from equal options: raise it when that changes
_CAME_LATER = ("lists", "position_bias", "dear_first", "first_day", "last_day")

_OF_LISTS = (
    Feature(name="list_id", kind="id", side="context", dtype="int64"),
    Feature(name="place", kind="dense", side="context", dtype="int64"),
)
_SESSIONS = 1 << 20  # more than a user has


class Synthetic(World, Source):
    """A log of impressions, clicks, purchases and returns by users with planted interests.

    Every item shown makes one row, and `event_type` says how far it went: `impression` (shown
    and passed over), `click`, or `purchase` (clicked and bought). A `return` is a later row of
    its own with negative quantity. `clicked` is 1 for clicks and purchases, 0 for impressions.
    No user clicks an item twice, so clicks and purchases make sequences without repeats.
    """

    source: Literal["synthetic"] = "synthetic"
    first_day: int | None = Field(
        None, ge=0, description="Tell only what happens from this day on, of days from 0..."
    )
    last_day: int | None = Field(None, ge=0, description="... and up to the end of this one.")

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        """All roles; brand, category and words of items; country and age band of users."""
        return Schema(
            user="user_id",
            item="item_id",
            label="clicked",
            price="price",
            quantity="quantity",
            event_type="event_type",
            propensity="propensity",
            list="list_id" if self.lists else None,
            place="place" if self.lists else None,
            title="title",
            features=(
                Feature(name="user_id", kind="id", side="user", dtype="int64"),
                Feature(name="country", kind="id", side="user"),
                Feature(name="age_band", kind="id", side="user"),
                Feature(name="item_id", kind="id", side="item", dtype="int64"),
                Feature(name="title", kind="text", side="item"),
                Feature(name="brand", kind="id", side="item"),
                Feature(name="category", kind="id", side="item"),
                Feature(name="keywords", kind="bag", side="item"),
                Feature(name="list_price", kind="dense", side="item", dtype="float64"),
                Feature(name="event_type", kind="id", side="context"),
                Feature(name="clicked", kind="dense", side="context", dtype="float32"),
                Feature(name="price", kind="dense", side="context", dtype="float64"),
                Feature(name="quantity", kind="dense", side="context", dtype="int64"),
                Feature(name="propensity", kind="dense", side="context", dtype="float32"),
                *(_OF_LISTS if self.lists else ()),
            ),
        )

    def read_events(self) -> Iterator[RawChunk]:
        """The events, one block of users after another, each in order of time."""
        row = 1
        for block, users in self._user_blocks():
            rows = simulate(self, self._items, users, block)
            events, day = self._event_table(rows, users.first), rows.second // DAY_S
            last = np.inf if self.last_day is None else self.last_day
            events = events.filter(pa.array((day >= (self.first_day or 0)) & (day <= last)))
            yield RawChunk(events, "events", np.arange(row, row + events.num_rows))
            row += events.num_rows

    def read_items(self) -> Iterator[RawChunk]:
        """The catalogue, block by block."""
        words = Words.draw(self)
        for first in range(0, self.items, ITEM_BLOCK):
            rows = np.arange(first, min(first + ITEM_BLOCK, self.items))
            texts = words.describe(self._items.cluster[rows], first // ITEM_BLOCK)
            columns = {"item_id": rows + 1, **texts, "list_price": self._items.price[rows]}
            yield RawChunk(pa.table(columns), "items", rows + 1)

    def read_users(self) -> Iterator[RawChunk]:
        """Country and age band, block by block."""
        for _, users in self._user_blocks():
            ids = users.first + 1 + np.arange(len(users.country))
            country = pa.array(COUNTRIES).take(pa.array(users.country))
            age = pa.array(AGE_BANDS).take(pa.array(users.age))
            table = pa.table({"user_id": ids, "country": country, "age_band": age})
            yield RawChunk(table, "users", ids)

    def fingerprint(self) -> str:
        """From the options; those that came later count where they are set."""
        options = type(self).model_fields
        unset = {n for n in _CAME_LATER if getattr(self, n) == options[n].default}
        return self._digest(_VERSION, without=frozenset(unset))

    @property
    def total_rows(self) -> int:
        """About how many events there will be."""
        return int(self.users * self.events / self.expected_click_rate())

    def save_truth(self, folder: Path) -> None:
        """Write what `Truth.load` reads."""
        save_truth(folder, self, self._items, (users for _, users in self._user_blocks()))

    @cached_property
    def _items(self) -> Items:
        return Items.draw(self)

    def _user_blocks(self) -> Iterator[tuple[int, Users]]:
        for block in range(-(-self.users // USER_BLOCK)):
            yield block, Users.draw(self, block)

    def _event_table(self, rows: Rows, first: int) -> pa.Table:
        returned = rows.kind == RETURN
        clicked = (rows.kind != IMPRESSION).astype(np.float32)
        micros = (START_S + rows.second) * 1_000_000
        of_lists = {}
        if self.lists:
            sessions = (first + 1 + rows.user).astype(np.int64) * _SESSIONS + rows.session
            of_lists = {
                "list_id": pa.array(sessions, mask=returned),
                "place": pa.array(rows.place, mask=returned),
            }
        return pa.table(
            {
                "user_id": first + 1 + rows.user,
                "item_id": rows.item + 1,
                "time": pa.array(micros).cast(TIME_TYPE),
                "event_type": pa.array(EVENT_TYPES).take(pa.array(rows.kind)),
                "clicked": pa.array(clicked, mask=returned),
                "price": self._items.price[rows.item],
                "quantity": pa.array(rows.quantity, mask=rows.quantity == 0),
                "propensity": pa.array(rows.propensity, mask=returned),
                **of_lists,
            }
        )
