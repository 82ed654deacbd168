"""Parquet: a log of one's own, in Parquet or CSV files, with its columns named in the options."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationError

from feature_store.columns import LABEL, TIME, fault_of, free_name
from feature_store.errors import ConfigError, DataError
from feature_store.options import Options
from feature_store.parquet import UNREADABLE, open_parquet, unreadable
from feature_store.schema import Dtype, Feature, Kind, Schema, Side
from feature_store.sources.base import RawChunk, Source
from feature_store.sources.column_types import (
    NUMBERS,
    ColumnType,
    parquet_columns,
    text_columns,
)
from feature_store.sources.files import file_identity, open_binary
from feature_store.sources.paths import find
from feature_store.sources.text_file import DELIMITERS, header_of, is_text, layout_of
from feature_store.sources.text_table import read_text
from feature_store.storage import Place, size_of

BATCH_ROWS = 1 << 18


class Columns(Options):
    """Which columns of the events carry which role."""

    user: str = Field(description="Who: the id of a user.")
    item: str = Field(description="What: the id of an item.")
    time: str = Field(description="When: a date or time, ISO 8601 or seconds since 1970 (UTC).")
    label: str | None = Field(
        None, description="What a ranker learns: 0 or 1, or stars (see labels.positive_from)."
    )
    price: str | None = Field(
        None, description="Of one piece, never of the line: money is price times quantity."
    )
    cost: str | None = Field(
        None, description="What one piece costs the seller; with it profit is measured, too."
    )
    quantity: str | None = Field(None, description="Pieces of a purchase; below 0 of a return.")
    event_type: str | None = Field(None, description="What happened, such as click or purchase.")
    propensity: str | None = Field(None, description="Probability with which the item was shown.")

    list: str | None = Field(
        None, description="Of the page or list: rows with the same value were shown together."
    )
    place: str | None = Field(None, description="Where in the list the item was shown, from 1.")

    @property
    def numbers(self) -> tuple[str, ...]:
        """Columns whose roles make them numbers."""
        roles = (self.label, self.price, self.cost, self.quantity, self.propensity, self.place)
        return tuple(name for name in roles if name is not None)


class ParquetLog(Source):
    """Events, and if there are any, items and users, from Parquet or CSV files.

    Options:
        path: a file, a folder (all Parquet or CSV files below it) or a pattern such as
            `log/2024-*.parquet`; CSV is told by `.csv`, `.tsv`, also with `.gz` behind.
        columns: the roles of columns of the events.
        features: further columns of the events that become context features.
        items, users: like `path`. They hold the id under the same name as the events do; every
            other column becomes a feature, apart from those in `ignore`.
        title: the items' column that people read.
        kinds: kinds for columns that should not follow from their types: by default texts and
            integers are ids, lists are bags, fractions are dense. CSV holds texts alone.
        unique: event columns whose combination may occur only once.

    All options speak of columns as the files call them. A feature has the name of its column where
    one can, and one much like it elsewhere: see `renamed`.
    """

    source: Literal["parquet"] = "parquet"
    path: str = Field(description="A file, a folder or a pattern, of Parquet or CSV files.")
    columns: Columns = Field(description="Which column of the events has which role.")
    features: tuple[str, ...] = Field(
        (), description="Further columns of the events that models may read."
    )
    items: str | None = Field(
        None, description="Attributes of items: files like path, with the id named as there."
    )
    users: str | None = Field(
        None, description="Attributes of users: files like path, with the id named as there."
    )
    title: str | None = Field(None, description="Column of the items that people read.")
    kinds: dict[str, Kind] = Field(
        default_factory=dict,
        description="Kinds of columns that should not follow from their types.",
    )
    ignore: tuple[str, ...] = Field((), description="Columns of items and users that are left out.")
    unique: tuple[str, ...] = Field(
        (), description="Columns of the events whose combination may occur once."
    )

    @cached_property
    def _log(self) -> tuple[Schema, _Names]:
        events = _columns_of(self.path)
        roles = self.columns
        item_columns = _columns_of(self.items) if self.items else {}
        user_columns = _columns_of(self.users) if self.users else {}
        in_items = {roles.price, roles.cost} & set(item_columns)
        named = [name for name in (*roles.numbers, roles.event_type, roles.list) if name]
        wanted = dict.fromkeys([*named, *self.features])
        context = [name for name in wanted if name in events or name not in in_items]
        _require([roles.user, roles.item, roles.time, *context], events, self.path)
        _refuse_twice(roles, context)
        sides: tuple[tuple[str | None, dict[str, ColumnType], str, Side], ...] = (
            (self.items, item_columns, roles.item, "item"),
            (self.users, user_columns, roles.user, "user"),
        )
        for path, have, key, _ in sides:
            if path is not None:
                _require([key], have, path)
                events[key] = _same_ids(key, events[key], have[key])
        names = _Names(roles)
        features = [
            self._feature(roles.user, events[roles.user], "user", names),
            self._feature(roles.item, events[roles.item], "item", names),
            *(self._feature(name, events[name], "context", names) for name in context),
        ]
        for _, have, key, side in sides:
            rest = [name for name in have if name != key and name not in self.ignore]
            features += [self._feature(name, have[name], side, names) for name in rest]
        known = {column for columns in names.of_side.values() for column in columns}
        for option, asked in (("kinds", list(self.kinds)), ("title", [self.title or roles.item])):
            for name in asked:
                if name not in known:
                    have_names = ", ".join(sorted(known))
                    raise ConfigError(f"{option} names {name!r}, which is none of: {have_names}")
        title = self.title and names.of_side["item"].get(self.title, self.title)
        unique = tuple(names.of_events.get(name, name) for name in self.unique)
        given = {role: name and names.called(name) for role, name in roles.model_dump().items()}
        try:
            schema = Schema(features=tuple(features), title=title, unique=unique, **given)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(
                f"the columns of {self.path} make no log: {why}; leave columns of items and users "
                "out with `ignore`"
            ) from None
        return schema, names

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        """From the options and the types of the columns."""
        return self._log[0]

    @property
    def renamed(self) -> dict[str, str]:
        """The columns whose features are called otherwise, and how."""
        names = self._log[1]
        every = [*names.of_side.values(), names.of_events]
        return {c: name for columns in every for c, name in columns.items() if c != name}

    def read_events(self) -> Iterator[RawChunk]:
        """The rows of all files, in order of the files' names."""
        return self._read(self.path, self._log[1].of_events)

    def read_items(self) -> Iterator[RawChunk]:
        """The items, if there are any."""
        if self.items:
            yield from self._read(self.items, self._log[1].of_side["item"])

    def read_users(self) -> Iterator[RawChunk]:
        """The users, if there are any."""
        if self.users:
            yield from self._read(self.users, self._log[1].of_side["user"])

    def fingerprint(self) -> str:
        """From the options and the files."""
        parts = [part for part in (self.path, self.items, self.users) if part]
        paths = [path for part in parts for path in find(part)]
        without = frozenset({"path", "items", "users"})
        return self._digest(file_identity(paths), without=without)

    @property
    def total_bytes(self) -> int | None:
        """Bytes of the events, when they are plain CSV."""
        paths = find(self.path)
        if all(path.suffix in DELIMITERS for path in paths):
            return sum(size_of(path) for path in paths)
        return None

    @property
    def total_rows(self) -> int | None:
        """Rows of the events, when they are Parquet."""
        paths = find(self.path)
        if any(is_text(path) for path in paths):
            return None
        return sum(open_parquet(path).metadata.num_rows for path in paths)

    def _feature(self, name: str, column: ColumnType, side: Side, names: _Names) -> Feature:
        key = name in (self.columns.user, self.columns.item)
        dtype, kind = _derive(column)
        number = key or name in self.columns.numbers or name in self.kinds
        if len(column.families) > 1 and not (number and column.families == NUMBERS):
            raise _unlike(name, column.differences)
        if name == self.title and side == "item":
            dtype, kind = "string", "text"
        elif name in self.columns.numbers:
            fraction: Dtype = "float32" if name == self.columns.label else "float64"  # of money
            dtype, kind = ("int64" if dtype == "int64" else fraction), "dense"
        elif key and kind != "bag" and dtype is not None:
            dtype, kind = ("string" if dtype == "string" else "int64"), "id"
        elif name in self.kinds:
            kind = self.kinds[name]
            if kind == "dense":
                dtype = "int64" if dtype == "int64" else "float32"
            elif kind == "text":
                dtype = "string"
            elif dtype == "float32":
                dtype = "int64"
        if dtype is None or kind is None:
            raise ConfigError(
                f"column {name!r} is of type {column.kind}, which is no feature: "
                "list it in `ignore`, or cast it"
            )
        return Feature(name=names.call(name, side), kind=kind, side=side, dtype=dtype)

    def _read(self, pattern: str, columns: dict[str, str]) -> Iterator[RawChunk]:
        """The columns of all files, under the names of their features."""
        for path in find(pattern):
            read = _read_text if is_text(path) else _read_parquet
            for chunk in read(path, list(columns)):
                table = chunk.table.select(list(columns))  # `a` brings `a.b` with it, of Parquet
                yield chunk.with_table(table.rename_columns(list(columns.values())))


class _Names:
    """What the features of people's columns are called."""

    def __init__(self, roles: Columns) -> None:
        self._roles = roles
        self._time = TIME if fault_of(roles.time) else roles.time
        self._taken = {self._time.casefold()}
        self.of_side: dict[Side, dict[str, str]] = {"user": {}, "item": {}, "context": {}}

    def call(self, column: str, side: Side) -> str:
        """Give a column's feature its name, which no other has."""
        of_events = side != "item" or column == self._roles.item
        labels = {LABEL} if of_events and column != self._roles.label else set()
        name = free_name(column, {"context": "event"}.get(side, side), self._taken | labels)
        self._taken.add(name.casefold())
        self.of_side[side][column] = name
        return name

    @property
    def of_events(self) -> dict[str, str]:
        """Of the columns of events."""
        user, item = self._roles.user, self._roles.item
        keys = {user: self.of_side["user"][user], item: self.of_side["item"][item]}
        return {**keys, self._roles.time: self._time, **self.of_side["context"]}

    def called(self, column: str) -> str:
        """Of a column with a role, which items may hold where events do not."""
        return self.of_events.get(column) or self.of_side["item"].get(column, column)


def _columns_of(pattern: str) -> dict[str, ColumnType]:
    """The columns of all files, which go by their names: whoever reads a file that lacks one that
    is wanted refuses it."""
    paths = find(pattern)
    texts = [path for path in paths if is_text(path)]
    files = [(path, open_parquet(path)) for path in paths if path not in texts]
    for path, file in files:
        names = file.schema_arrow.names
        if twice := [name for name in names if names.count(name) > 1]:
            raise DataError(f"{path}: several columns are called {twice[0]!r}: rename all but one")
    try:
        columns = parquet_columns(files)
    except UNREADABLE as error:
        raise DataError(f"{pattern} cannot be read as Parquet: {error}") from None
    for path in texts:
        for name, column in text_columns(header_of(path), path).items():
            columns[name] = columns[name].beside(column) if name in columns else column
    return columns


def _require(names: list[str], have: dict[str, ColumnType], path: str) -> None:
    for name in names:
        if name not in have:
            raise DataError(f"{path}: no column {name!r}; it has: {', '.join(have)}")


def _refuse_twice(roles: Columns, context: list[str]) -> None:
    """Raises ConfigError where one column is to be several things that exclude each other."""
    keys = {"user": roles.user, "item": roles.item, "time": roles.time}
    for role, column in keys.items():
        others = [other for other, name in keys.items() if name == column and other != role]
        if others or column in context:
            other = f"columns.{others[0]}" if others else "another role, or among `features`"
            raise ConfigError(
                f"column {column!r} is data.columns.{role} and {other}: each needs its own"
            )


def _unlike(name: str, differences: str) -> DataError:
    return DataError(
        f"column {name!r} is of unlike types, {differences}: write all files with the same type"
    )


def _same_ids(key: str, events: ColumnType, catalogue: ColumnType) -> ColumnType:
    """The type of ids that events and catalogue share; texts of CSV may be ids of either type."""
    both = events.families | catalogue.families
    if ("text", False) in both and len(both) > 1 and not (events.untyped or catalogue.untyped):
        raise _unlike(key, events.beside(catalogue).differences)
    return catalogue if catalogue.family == "text" and not catalogue.untyped else events


def _derive(column: ColumnType) -> tuple[Dtype | None, Kind | None]:
    dtypes: dict[str, Dtype] = {"text": "string", "integer": "int64", "fraction": "float32"}
    dtype = dtypes.get(column.family)
    if column.lists:
        return (dtype, "bag") if dtype in ("string", "int64") else (None, None)
    return dtype, (None if dtype is None else "dense" if dtype == "float32" else "id")


def _read_parquet(path: Place, names: list[str]) -> Iterator[RawChunk]:
    file = open_parquet(path)
    have = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    _require(names, have, str(path))
    batches = file.iter_batches(BATCH_ROWS, columns=names)
    row = 1
    while True:
        try:
            batch = next(batches, None)
        except UNREADABLE as error:
            raise unreadable(path, error) from None
        if batch is None:
            return
        table = pa.Table.from_batches([batch])
        for place, field in enumerate(table.schema):
            if pa.types.is_string_view(field.type):  # which little can be done with
                table = table.set_column(place, field.name, table[field.name].cast(pa.string()))
        yield RawChunk(table, str(path), np.arange(row, row + table.num_rows))
        row += table.num_rows


def _read_text(path: Place, names: list[str]) -> Iterator[RawChunk]:
    with open_binary(path) as stream:
        for chunk in read_text(stream, str(path), layout_of(path, tuple(names))):
            yield chunk.with_table(chunk.table.select(names))
