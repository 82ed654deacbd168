"""trivago: sessions of people who look for hotels, from the RecSys Challenge of 2019."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from feature_store.errors import DataError
from feature_store.parquet import open_parquet
from feature_store.schema import TIME_TYPE, Feature, Schema
from feature_store.sources.base import RawChunk, Source
from feature_store.sources.files import file_identity, open_binary
from feature_store.sources.text_table import TextFormat, read_text

CLICKOUT = "clickout item"
TOUCHES = (  # the other actions whose reference is a hotel
    "interaction item image",
    "interaction item info",
    "interaction item rating",
    "interaction item deals",
    "search for item",
)
_COLUMNS = (
    *("user_id", "session_id", "timestamp", "step", "action_type", "reference"),
    *("platform", "city", "device", "current_filters", "impressions", "prices"),
)
_CONTEXT = ("platform", "city", "device", "current_filters")
_BEFORE, _IDLE = "previous_action", "idle_seconds"  # what its session did before, and how long ago
_FORMAT = TextFormat(_COLUMNS, header=True, quoted=True)
_SUFFIXES = (".csv", ".csv.gz", ".parquet", ".parquet.snappy")
_BATCH_ROWS = 1 << 16
_SECONDS = r"^\d{9,11}$"
_STEPS = 1_000_000  # microseconds of a second, of which each tells a step


class Trivago(Source):
    """Lists of hotels with prices, which of them was clicked, and what else was looked at.

    Give `path`: the published table, CSV or Parquet, or the folder that holds one.

    A click-out is one row for each hotel shown: `clicked` is 1 for the one that was chosen, and
    `place` and `price` are those in the list. Where that one is not in the list, it is a row more,
    without a label or a list. An image, information, ratings, deals or a search of a hotel is an
    event without a label. Other actions are of no hotel, and no events.

    Actions of a session that share a second come by their step: the time of an event is the
    published second, and as many microseconds as its step. `previous_action` is the session's
    action before, of any type, also one of no hotel, and `idle_seconds` how long ago it was; null
    of its first. The table is read as it is published: by session, in order.
    """

    source: Literal["trivago"] = "trivago"
    path: Path = Field(description="The table as CSV or Parquet, or its folder.")

    @cached_property
    def _file(self) -> Path:
        path = self.path.expanduser()
        if not path.exists():
            raise DataError(f"{path}: no table is there: give it, or the folder that holds it")
        if not path.is_dir():
            return path
        tables = sorted(each for each in path.iterdir() if each.name.endswith(_SUFFIXES))
        if len(tables) != 1:
            names = ", ".join(each.name for each in tables) or "none"
            raise DataError(f"{path} holds {names}: give the table itself, such as train.csv")
        return tables[0]

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        """Hotels by number; the session's platform, city, device and filters as context."""
        return Schema(
            user="user_id",
            item="hotel_id",
            label="clicked",
            price="price",
            event_type="action_type",
            list="list_id",
            place="place",
            features=(
                Feature(name="user_id", kind="id", side="user"),
                Feature(name="hotel_id", kind="id", side="item", dtype="int64"),
                Feature(name="action_type", kind="id", side="context"),
                Feature(name="clicked", kind="dense", side="context", dtype="float32"),
                Feature(name="price", kind="dense", side="context", dtype="float64"),
                Feature(name="list_id", kind="id", side="context", dtype="int64"),
                Feature(name="place", kind="dense", side="context", dtype="int64"),
                *(Feature(name=name, kind="id", side="context") for name in (*_CONTEXT, _BEFORE)),
                Feature(name=_IDLE, kind="dense", side="context", dtype="float32"),
            ),
        )

    def read_events(self) -> Iterator[RawChunk]:
        """Rows of lists and single events, in the file's order."""
        last: pa.Table | None = None
        for chunk in self._read():
            before = _before(chunk.table, last)
            last = chunk.table.slice(max(chunk.table.num_rows - 1, 0))
            checked = _checked(chunk)
            kept = np.searchsorted(chunk.lines, checked.lines)
            yield _events(checked, before.take(pa.array(kept)))

    def fingerprint(self) -> str:
        """From the file."""
        return self._digest(file_identity([self._file]), without=frozenset({"path"}))

    def _read(self) -> Iterator[RawChunk]:
        file = str(self._file)
        if self._file.name.endswith((".csv", ".csv.gz")):
            with open_binary(self._file) as stream:
                for chunk in read_text(stream, file, _FORMAT):
                    yield chunk.with_table(_texts(chunk.table))
            return
        table = open_parquet(self._file)
        missing = [name for name in _COLUMNS if name not in table.schema_arrow.names]
        if missing:
            raise DataError(f"{file} lacks {', '.join(missing)}: it is no table of trivago's")
        row = 1
        for batch in table.iter_batches(_BATCH_ROWS, columns=list(_COLUMNS)):
            rows = _texts(pa.Table.from_batches([batch]))
            yield RawChunk(rows, file, np.arange(row, row + rows.num_rows))
            row += rows.num_rows


def _texts(table: pa.Table) -> pa.Table:
    """The published columns as texts, null where they are empty."""
    columns = {}
    for name in _COLUMNS:
        text = table[name].cast(pa.string())
        columns[name] = pc.if_else(pc.equal(text, ""), None, text)
    return pa.table(columns)


def _matches(table: pa.Table, column: str, pattern: str) -> np.ndarray:
    """Which rows [n] match; none that is null."""
    matched = pc.match_substring_regex(table[column], pattern).fill_null(False)
    return matched.to_numpy().copy()


def _of_type(table: pa.Table, types: tuple[str, ...]) -> np.ndarray:
    return pc.is_in(table["action_type"], pa.array(types)).to_numpy().copy()


def _checked(chunk: RawChunk) -> RawChunk:
    """The actions on hotels, without rows that are broken."""
    chunk = chunk.reject(~_matches(chunk.table, "user_id", "."), "user_id", "is missing")
    chunk = chunk.reject(
        ~_matches(chunk.table, "timestamp", _SECONDS), "timestamp", "is no second since 1970"
    )
    chunk = chunk.reject(
        ~_matches(chunk.table, "step", r"^\d{1,5}$"), "step", "is no number of a step"
    )
    acted = _of_type(chunk.table, (CLICKOUT, *TOUCHES))
    chunk = chunk.reject(
        acted & ~_matches(chunk.table, "reference", r"^\d{1,18}$"), "reference", "is not a hotel"
    )
    clickout = _of_type(chunk.table, (CLICKOUT,))
    lists = (
        ("impressions", r"^\d{1,18}(\|\d{1,18})*$", "is no list of hotels parted by |"),
        ("prices", r"^\d+(\.\d+)?(\|\d+(\.\d+)?)*$", "is no list of prices parted by |"),
    )
    for column, pattern, reason in lists:
        wrong = clickout & ~_matches(chunk.table, column, pattern)
        chunk = chunk.reject(wrong, column, reason)
        clickout = _of_type(chunk.table, (CLICKOUT,))
    shown, prices = (
        pc.count_substring(chunk.table[column], "|").fill_null(0).to_numpy()
        for column in ("impressions", "prices")
    )
    return chunk.reject(clickout & (shown != prices), "prices", "are not one for each hotel shown")


def _before(table: pa.Table, last: pa.Table | None) -> pa.Table:
    """Of each row [n] the session's action before it, and the seconds since; `last` is the row
    before the first."""
    rows = table if last is None else pa.concat_tables([last, table])
    rows = rows.combine_chunks()
    times = pc.if_else(pa.array(_matches(rows, "timestamp", _SECONDS)), rows["timestamp"], None)
    moments = times.cast(pa.int64())
    before = pa.array(np.arange(rows.num_rows) - 1)
    before = pc.if_else(pc.less(before, 0), None, before)
    follows = pa.array(np.ones(rows.num_rows, dtype=bool))
    for name in ("user_id", "session_id"):
        follows = pc.and_(follows, pc.equal(rows[name], rows[name].take(before)))
    idle = pc.subtract(moments, moments.take(before))
    known = pc.and_(follows, pc.greater_equal(idle, 0)).fill_null(False)
    told = pa.table(
        {
            _BEFORE: pc.if_else(known, rows["action_type"].take(before), None),
            _IDLE: pc.if_else(known, idle, None).cast(pa.float32()),
        }
    )
    return told.slice(0 if last is None else last.num_rows)


def _events(chunk: RawChunk, before: pa.Table) -> RawChunk:
    """One row a hotel shown, one for each other action on a hotel; lines in their order. `before`
    is of the chunk's rows."""
    table = chunk.table
    clickout = np.flatnonzero(_of_type(table, (CLICKOUT,)))
    shown = pc.split_pattern(table["impressions"].take(pa.array(clickout)), "|").combine_chunks()
    prices = pc.split_pattern(table["prices"].take(pa.array(clickout)), "|").combine_chunks()
    row = clickout[pc.list_parent_indices(shown).to_numpy()]
    hotel = shown.flatten().cast(pa.int64()).to_numpy()
    price = prices.flatten().cast(pa.float64()).to_numpy()
    lengths = pc.list_value_length(shown).to_numpy()
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + 1
    acted = _of_type(table, (CLICKOUT, *TOUCHES))
    reference = np.zeros(table.num_rows, dtype=np.int64)
    reference[acted] = table["reference"].filter(pa.array(acted)).cast(pa.int64()).to_numpy()
    clicked = hotel == reference[row]
    outside = np.setdiff1d(clickout, row[clicked])
    single = np.union1d(np.flatnonzero(_of_type(table, TOUCHES)), outside)
    rows = np.concatenate([row, single])
    order = np.lexsort([np.concatenate([place, np.zeros(len(single), np.int64)]), rows])
    alone = np.concatenate([np.zeros(len(row), bool), np.ones(len(single), bool)])[order]
    rows = rows[order]

    def of_lists(values: np.ndarray) -> pa.Array:
        filled = np.concatenate([values, np.zeros(len(single), values.dtype)])
        return pa.array(filled[order], mask=alone)

    acts = table.take(pa.array(rows))
    before = before.take(pa.array(rows))
    second, step = (acts[name].cast(pa.int64()).to_numpy() for name in ("timestamp", "step"))
    events = pa.table(
        {
            "user_id": acts["user_id"],
            "hotel_id": np.concatenate([hotel, reference[single]])[order],
            "time": pa.array(second * _STEPS + step).cast(TIME_TYPE),
            "action_type": acts["action_type"],
            "clicked": of_lists(clicked.astype(np.float32)),
            "price": of_lists(price),
            "list_id": of_lists(chunk.lines[row]),
            "place": of_lists(place),
            **{name: acts[name] for name in _CONTEXT},
            **{name: before[name] for name in (_BEFORE, _IDLE)},
        }
    )
    return RawChunk(events, chunk.file, chunk.lines[rows], chunk.bad, chunk.read_bytes)
