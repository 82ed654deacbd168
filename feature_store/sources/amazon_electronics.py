"""Amazon Electronics as BARS has it: rows with a label and a history."""

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
from feature_store.schema import Feature, Schema
from feature_store.sources.base import RawChunk, Source
from feature_store.sources.files import Files
from feature_store.sources.rules import Rule
from feature_store.sources.text_table import TextFormat, read_text

REVIEWED, DRAWN = "reviewed", "drawn"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
_FILES = ("train.csv", "test.csv")
_COLUMNS = ("label", "user_id", "item_id", "cate_id", "item_history", "cate_history")
_FORMAT = TextFormat(_COLUMNS, header=True)
_ID, _IDS = r"^\d{1,18}$", r"^\d{1,18}(\^\d{1,18})*$"
_RULES = (  # the first that a line breaks names it
    Rule("label", r"^[01]$", "is not 0 or 1"),
    *(Rule(name, _ID, "is not a number of at most 18 digits") for name in _COLUMNS[1:4]),
    *(Rule(name, _IDS, "is no list of numbers such as 5^7^9") for name in _COLUMNS[4:]),
)


class AmazonElectronics(Source):
    """Reviews of electronics, each beside an item that the user has not reviewed, from `train.csv`
    and `test.csv` of AmazonElectronics_x1.

    A row asks whether an item followed a history, and says how long that was: so many seconds after
    1970 is the row's time. What was reviewed (`kind` = "reviewed") is the history of later rows,
    and what was drawn beside it ("drawn") of none. A user's first review was asked by no row: it is
    an event without a label, from the first place of a history.

    The published test is the last review of every user, and the published tables are tuned on it.
    Here the review before it is a validation part of its own, unless `validation` is false.
    """

    source: Literal["amazon_electronics"] = "amazon_electronics"
    path: Path = Field(description="Folder or zip with train.csv and test.csv.")
    validation: bool = Field(True, description="Each user's last training review is validation.")

    @cached_property
    def _files(self) -> Files:
        return Files(self.path)

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        """Users and items with their category, the label, and which part a row is of."""
        return Schema(
            user="user_id",
            item="item_id",
            label="label",
            event_type="kind",
            published_role="published_role",
            clock="order",
            unique=("user_id", "time", "kind"),
            features=(
                Feature(name="user_id", kind="id", side="user", dtype="int64"),
                Feature(name="item_id", kind="id", side="item", dtype="int64"),
                Feature(name="cate_id", kind="id", side="item", dtype="int64"),
                Feature(name="label", kind="dense", side="context", dtype="float32"),
                Feature(name="kind", kind="id", side="context"),
                Feature(name="published_role", kind="text", side="context"),
            ),
        )

    def read_events(self) -> Iterator[RawChunk]:
        """First reviews and rows, those of the test first: they say how long histories become."""
        reviews: dict[int, int] = {}  # of a user, before that of the test
        for file, chunk in self._read(reversed(_FILES)):
            users, times = (chunk.table[name].to_pylist() for name in ("user_id", "time"))
            if file == "test.csv":
                roles = [TEST] * len(users)
                reviews |= zip(users, times, strict=True)
            else:
                last = (reviews.get(user) if self.validation else None for user in users)
                roles = [
                    VALIDATION if of_test is not None and time == of_test - 1 else TRAIN
                    for time, of_test in zip(times, last, strict=True)
                ]
            yield self._events(chunk, roles, first=file == "test.csv")

    def _events(self, chunk: RawChunk, roles: list[str], *, first: bool) -> RawChunk:
        """A chunk's rows as events; with `first` also the first review of each history of a row
        with label 1."""
        table = chunk.table
        positive = pc.equal(table["label"], "1")
        events = pa.table(
            {
                "user_id": table["user_id"],
                "item_id": table["item_id"],
                "time": table["time"],
                "kind": pc.if_else(positive, REVIEWED, DRAWN),
                "label": table["label"].cast(pa.float32()),
                "published_role": pa.array(roles, pa.string()),
            }
        )
        if not first:
            return chunk.with_table(events)
        begun = np.flatnonzero(positive.to_numpy())
        of_first = {
            "item_id": pc.list_element(table["items"], 0),
            "time": pa.array(np.zeros(len(table), np.int64)),
            "label": pa.nulls(len(table), pa.float32()),
            "published_role": pa.array([TRAIN] * len(table), pa.string()),
        }
        reviews = events.select(["user_id", "kind"])
        for name, column in of_first.items():
            reviews = reviews.append_column(name, column)
        reviews = reviews.select(events.column_names).take(pa.array(begun))
        lines = np.concatenate([chunk.lines, chunk.lines[begun]])
        whole = pa.concat_tables([events, reviews])
        return RawChunk(whole, chunk.file, lines, chunk.bad, chunk.read_bytes)

    def read_items(self) -> Iterator[RawChunk]:
        """Every item of rows and histories, with the category that it has first."""
        firsts: list[pa.Table] = []
        name = ""
        for _, chunk in self._read(_FILES):
            name, table = chunk.file, chunk.table
            pairs = [(table["item_id"], table["cate_id"].cast(pa.int64()))]
            pairs.append((pc.list_flatten(table["items"]), pc.list_flatten(table["categories"])))
            parts = [pa.table({"item_id": items, "cate_id": of}) for items, of in pairs]
            line = pa.array(np.full(sum(map(len, parts)), int(chunk.lines.min(initial=1))))
            part = pa.concat_tables(parts).append_column("line", line)
            firsts.append(_first_of_each([*firsts[-1:], part]))
            del firsts[:-1]
        if firsts:
            lines = firsts[0]["line"].to_numpy()
            yield RawChunk(firsts[0].drop_columns(["line"]), name, lines)

    def fingerprint(self) -> str:
        """From the options and the files."""
        return self._digest(self._files.identity(list(_FILES)), without=frozenset({"path"}))

    @property
    def total_bytes(self) -> int | None:
        """Bytes of the tables."""
        return sum(self._files.size(name) for name in _FILES if name in self._files.names)

    def _read(self, files: Iterator[str] | tuple[str, ...]) -> Iterator[tuple[str, RawChunk]]:
        """Chunks with ids as numbers, `items` and `categories` as lists, and `time`, the length of
        the history."""
        if missing := [name for name in _FILES if name not in self._files.names]:
            raise DataError(
                f"{self.path} has no {' and no '.join(missing)}: give the folder or zip of "
                "AmazonElectronics_x1"
            )
        for name in files:
            with self._files.open(name) as stream:
                for chunk in read_text(stream, self._files.label(name), _FORMAT):
                    yield name, _parsed(chunk)


def _parsed(chunk: RawChunk) -> RawChunk:
    for rule in _RULES:
        chunk = chunk.reject(rule.breaks(chunk.table), rule.column, rule.reason)
    items, categories = (_lists(chunk.table[name]) for name in _COLUMNS[4:])
    lengths = pc.list_value_length(items)
    differ = pc.not_equal(lengths, pc.list_value_length(categories)).to_numpy(False)
    table = chunk.table.append_column("items", items).append_column("categories", categories)
    chunk = chunk.with_table(table.append_column("time", lengths.cast(pa.int64())))
    reason = "has not as many categories as the history has items"
    chunk = chunk.reject(differ, "cate_history", reason)
    table = chunk.table
    for name in ("user_id", "item_id"):
        column = table[name].cast(pa.int64())
        table = table.set_column(table.column_names.index(name), name, column)
    return chunk.with_table(table)


def _lists(texts: pa.ChunkedArray) -> pa.ListArray:
    return pc.split_pattern(texts.combine_chunks(), "^").cast(pa.list_(pa.int64()))


def _first_of_each(parts: list[pa.Table]) -> pa.Table:
    """The first row of each item."""
    table = pa.concat_tables(parts).combine_chunks()
    _, first = np.unique(table["item_id"].to_numpy(), return_index=True)
    return table.take(pa.array(np.sort(first)))
