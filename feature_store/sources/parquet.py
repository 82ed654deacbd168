"""Parquet: a log of one's own, in Parquet or CSV files, with its columns named in the options."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from feature_store.errors import ConfigError, DataError
from feature_store.options import Options
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
from feature_store.sources.text_file import DELIMITERS, is_text, layout_of
from feature_store.sources.text_table import read_text

BATCH_ROWS = 1 << 18
_UNREADABLE = (pa.ArrowException, OSError)


class Columns(Options):
    """Which columns of the events carry which role."""

    user: str
    item: str
    time: str
    label: str | None = None
    price: str | None = None
    quantity: str | None = None
    event_type: str | None = None
    propensity: str | None = None

    @property
    def numbers(self) -> tuple[str, ...]:
        """Columns whose roles make them numbers."""
        roles = (self.label, self.price, self.quantity, self.propensity)
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
    """

    source: Literal["parquet"] = "parquet"
    path: str
    columns: Columns
    features: tuple[str, ...] = ()
    items: str | None = None
    users: str | None = None
    title: str | None = None
    kinds: dict[str, Kind] = Field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    unique: tuple[str, ...] = ()

    @cached_property
    def _schema(self) -> Schema:
        events = _columns_of(self.path)
        roles = self.columns
        item_columns = _columns_of(self.items) if self.items else {}
        user_columns = _columns_of(self.users) if self.users else {}
        in_items = {roles.price} if roles.price in item_columns else set()
        named = [name for name in (*roles.numbers, roles.event_type) if name]
        wanted = dict.fromkeys([*named, *self.features])
        context = [name for name in wanted if name in events or name not in in_items]
        _require([roles.user, roles.item, roles.time, *context], events, self.path)
        sides: tuple[tuple[str | None, dict[str, ColumnType], str, Side], ...] = (
            (self.items, item_columns, roles.item, "item"),
            (self.users, user_columns, roles.user, "user"),
        )
        for path, have, key, _ in sides:
            if path is not None:
                _require([key], have, path)
                events[key] = _same_ids(key, events[key], have[key])
        features = [
            self._feature(roles.user, events[roles.user], "user"),
            self._feature(roles.item, events[roles.item], "item"),
            *(self._feature(name, events[name], "context") for name in context),
        ]
        for _, have, key, side in sides:
            names = [name for name in have if name != key and name not in self.ignore]
            features += [self._feature(name, have[name], side) for name in names]
        known = {feature.name for feature in features}
        for option, names in (("kinds", list(self.kinds)), ("title", [self.title or roles.item])):
            for name in names:
                if name not in known:
                    have_names = ", ".join(sorted(known))
                    raise ConfigError(f"{option} names {name!r}, which is none of: {have_names}")
        given = roles.model_dump()
        try:
            return Schema(features=tuple(features), title=self.title, unique=self.unique, **given)
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(
                f"the columns of {self.path} make no log: {why}; leave columns of items and users "
                "out with `ignore`"
            ) from None

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        """From the options and the types of the columns."""
        return self._schema

    def read_events(self) -> Iterator[RawChunk]:
        """The rows of all files, in order of the files' names."""
        context = [feature.name for feature in self.schema.of_side("context")]
        names = [self.columns.user, self.columns.item, self.columns.time, *context]
        return self._read(self.path, names)

    def read_items(self) -> Iterator[RawChunk]:
        """The items, if there are any."""
        if self.items:
            yield from self._read(self.items, [f.name for f in self.schema.of_side("item")])

    def read_users(self) -> Iterator[RawChunk]:
        """The users, if there are any."""
        if self.users:
            yield from self._read(self.users, [f.name for f in self.schema.of_side("user")])

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
            return sum(path.stat().st_size for path in paths)
        return None

    @property
    def total_rows(self) -> int | None:
        """Rows of the events, when they are Parquet."""
        paths = find(self.path)
        if any(is_text(path) for path in paths):
            return None
        return sum(_open(path).metadata.num_rows for path in paths)

    def _feature(self, name: str, column: ColumnType, side: Side) -> Feature:
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
        return Feature(name=name, kind=kind, side=side, dtype=dtype)

    def _read(self, pattern: str, names: list[str]) -> Iterator[RawChunk]:
        for path in find(pattern):
            yield from _read_text(path, names) if is_text(path) else _read_parquet(path, names)


def _columns_of(pattern: str) -> dict[str, ColumnType]:
    """The columns of all files; of text files those of the first, whose header the others have."""
    paths = find(pattern)
    texts = [path for path in paths if is_text(path)]
    files = [(path, _open(path)) for path in paths if path not in texts]
    try:
        columns = parquet_columns(files)
    except _UNREADABLE as error:
        raise DataError(f"{pattern} cannot be read as Parquet: {error}") from None
    if texts:
        with open_binary(texts[0]) as stream:
            table = next(read_text(stream, str(texts[0]), layout_of(texts[0]))).table
        for name, column in text_columns(table.column_names, texts[0]).items():
            columns[name] = columns[name].beside(column) if name in columns else column
    return columns


def _require(names: list[str], have: dict[str, ColumnType], path: str) -> None:
    for name in names:
        if name not in have:
            raise DataError(f"{path}: no column {name!r}; it has: {', '.join(have)}")


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


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    why = str(error).splitlines()[0]
    return DataError(f"{path} cannot be read as Parquet ({why}): it may be truncated")


def _read_parquet(path: Path, names: list[str]) -> Iterator[RawChunk]:
    file = _open(path)
    have = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
    _require(names, have, str(path))
    batches = file.iter_batches(BATCH_ROWS, columns=names)
    row = 1
    while True:
        try:
            batch = next(batches, None)
        except _UNREADABLE as error:
            raise _unreadable(path, error) from None
        if batch is None:
            return
        table = pa.Table.from_batches([batch])
        for place, field in enumerate(table.schema):
            if pa.types.is_string_view(field.type):  # which little can be done with
                table = table.set_column(place, field.name, table[field.name].cast(pa.string()))
        yield RawChunk(table, str(path), np.arange(row, row + table.num_rows))
        row += table.num_rows


def _read_text(path: Path, names: list[str]) -> Iterator[RawChunk]:
    with open_binary(path) as stream:
        for chunk in read_text(stream, str(path), layout_of(path, tuple(names))):
            yield chunk.with_table(chunk.table.select(names))
