"""A tiny log with planted rules: on a ring of items, everyone steps to the next one, with which an
item's text shares a word; and members of a club like some genres and dislike the others.

It holds what the formats allow: string and integer ids, a bag of its own table and a bag that
shares the items' table, dense features, missing values, items without events, users with few.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.catalogue import Catalogue
from feature_store.columns import HISTORY, HISTORY_TIME, TIME
from feature_store.engine import Engine, EngineConfig
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, write_examples
from feature_store.labels import LabelConfig
from feature_store.protocols import LeaveOneOut, Random
from feature_store.schema import Feature, Schema
from feature_store.splits import make_split
from recsys.data.examples import Examples

USERS, ITEMS, UNSOLD = 120, 40, 2  # the unsold are in the catalogue alone
Shape = Literal["sequences", "events", "labelled"]
ROWS_OF: dict[Shape, RowsOf] = {
    "sequences": RowsOf(texts=True),
    "events": RowsOf(per="event", texts=True),
    "labelled": RowsOf(per="event", labels=True),
}
_CLUBS = ("chess", "rowing", None)
SCHEMA = Schema(
    user="user_id",
    item="item_id",
    label="liked",
    price="list_price",
    title="title",
    features=(
        Feature(name="user_id", kind="id", side="user", dtype="int64"),
        Feature(name="club", kind="id", side="user"),
        Feature(name="favourites", kind="bag", side="user", table="item_id"),
        Feature(name="badges", kind="bag", side="user"),
        Feature(name="age", kind="dense", side="user", dtype="int64"),
        Feature(name="item_id", kind="id", side="item"),
        Feature(name="genre", kind="id", side="item"),
        Feature(name="words", kind="bag", side="item"),
        Feature(name="list_price", kind="dense", side="item", dtype="float32"),
        Feature(name="title", kind="text", side="item"),
        Feature(name="blurb", kind="text", side="item"),
        Feature(name="liked", kind="dense", side="context", dtype="float32"),
    ),
)


def successor(item: str) -> str:
    """The item that always comes after `item`."""
    return f"i{(int(item[1:]) + 7) % ITEMS:02d}"


def blurb(item: int) -> str:
    """The places on the ring that the item lies between."""
    place = item * 23 % ITEMS  # 23 * 7 is 1 more than a multiple of ITEMS
    return f"From stop{place} on to Stop{(place + 1) % ITEMS}."


def stars(user: int, item: int, chance: int) -> float:
    """4 or 5 where the club goes with the genre, 1 or 2 where it does not."""
    fits = (user % 3 + item % 4) % 2 == 0
    return float((4 if fits else 1) + chance % 2)


def write_log(folder: Path) -> EventLog:
    """Write events, items and users; most users start on the same stretch of the ring."""
    rng = np.random.default_rng(7)
    log, events, users = EventLog.create(folder, SCHEMA), [], []
    for user in range(1, USERS + 1):
        item = f"i{7 * int(rng.integers(0, 8 if user % 4 else ITEMS)) % ITEMS:02d}"
        day = datetime(2024, 1, 1) + timedelta(hours=int(rng.integers(0, 240)))
        users.append((user, item))
        for _ in range(int(rng.integers(1, 5) if user % 20 == 0 else rng.integers(6, 13))):
            events.append(
                (1000 + user, item, day, stars(user, int(item[1:]), int(rng.integers(1, 6))))
            )
            item, day = successor(item), day + timedelta(days=1)
    columns = zip(*events, strict=True)
    log.append(pa.table(dict(zip(log.schema.events_schema().names, columns, strict=True))))
    catalogue = Catalogue(folder, SCHEMA)
    catalogue.write(
        "user",
        pa.table(
            {
                "user_id": [1000 + user for user, _ in users],
                "club": [_CLUBS[user % 3] for user, _ in users],
                "favourites": [None if user % 5 == 0 else [first] for user, first in users],
                "badges": [["a", "b", "c"][: user % 4] for user, _ in users],
                "age": [None if user % 7 == 0 else 20 + user % 50 for user, _ in users],
            },
            SCHEMA.side_schema("user"),
        ),
    )
    items = range(ITEMS + UNSOLD)
    catalogue.write(
        "item",
        pa.table(
            {
                "item_id": [f"i{item:02d}" for item in items],
                "genre": [None if item % 11 == 0 else f"g{item % 4}" for item in items],
                "words": [[f"w{item % 6}", f"w{item % 5}"][: item % 3] for item in items],
                "list_price": [None if item % 13 == 0 else item / ITEMS for item in items],
                "title": [None if item == 3 else f"Item number {item}" for item in items],
                "blurb": [None if item % 17 == 4 else blurb(item) for item in items],
            },
            SCHEMA.side_schema("item"),
        ),
    )
    return log


def write_planted(log: EventLog, folder: Path, shape: Shape, **options: object) -> Examples:
    """The leave-one-out examples of a log, or its labelled events split at random. `options`
    are those of `write_examples`."""
    engine = Engine(EngineConfig(threads=1))
    if shape == "labelled":
        split = make_split(engine, log, Random(), LabelConfig(positive_from=4, leave_out=(3,)))
    else:
        split = make_split(engine, log, LeaveOneOut())
    catalogue = Catalogue(log.folder, log.schema)
    write_examples(engine, split, catalogue, folder, rows_of=ROWS_OF[shape], **options)  # type: ignore[arg-type]
    return Examples(folder)


def raw_requests(examples: Examples, role: str = "test") -> pd.DataFrame:
    """The requests of a role as someone outside would make them: raw ids and values."""
    table = pq.read_table(examples.folder / f"{role}.parquet")
    columns: dict[str, pa.Array] = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if name in (HISTORY_TIME, TIME):
            columns[name] = column
        feature = examples.schema.find("item_id" if name == HISTORY else name)
        if feature is None:
            continue
        if feature.kind == "dense":
            columns[name] = column
        elif pa.types.is_list(column.type):
            values = examples.vocabulary(feature.name).decode(column.values.to_numpy())
            columns[name] = pa.ListArray.from_arrays(column.offsets, values)
        else:
            columns[name] = examples.vocabulary(feature.name).decode(column.to_numpy())
    return pa.table(columns).to_pandas()
