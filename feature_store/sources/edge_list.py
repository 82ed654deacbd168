"""Edge lists: pairs, with or without times, and users with their items, as graphs come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from feature_store.errors import DataError
from feature_store.schema import Feature, Schema
from feature_store.sources.base import BadRow, RawChunk, Source
from feature_store.sources.files import Files
from feature_store.sources.lines import read_lines, read_lists

Column = Literal["user", "item", "time", "label"]
_NAMES: dict[Column, str] = {
    "user": "user_id",
    "item": "item_id",
    "time": "time",
    "label": "label",
}
_ROLE = "published_role"
_ROLES = {
    "train.txt": "train",
    "valid.txt": "validation",
    "validation.txt": "validation",
    "test.txt": "test",
}


class EdgeList(Source):
    """Who met what: citations, check-ins, ratings, one pair a line or one user a line.

    Lines that begin with `#` are comments. A folder or zip with `train.txt` and `test.txt` (and
    perhaps `valid.txt` or `validation.txt`) is a published split, which the events carry as
    `published_role`. Equal pairs, or with times equal pairs at equal times, may occur once.

    Options:
        path: a file, also `.gz`, or a folder or zip that holds one file or a published split.
        format: "pairs", whose columns the first line shows to be parted by commas, tabs or
            other white space; or "adjacency", a user and then all its items.
        columns: what the columns of pairs hold, in their order; times are ISO 8601 or seconds
            since 1970. Without times the log has no order: adjacency lists never have one.
        ids: whether ids are numbers.
        same_nodes: users and items are the same things, such as papers that cite papers, and
            share one embedding table.
    """

    source: Literal["edge_list"] = "edge_list"
    path: Path = Field(description="A file, or a folder or zip with one file or a published split.")
    format: Literal["pairs", "adjacency"] = Field(
        "pairs", description="A pair a line, or a user and then all its items."
    )
    columns: tuple[Column, ...] = Field(
        ("user", "item"), description="What the columns of pairs hold, in their order."
    )
    ids: Literal["int", "string"] = Field("int", description="Whether ids are numbers.")
    same_nodes: bool = Field(
        False, description="Users and items are the same things and share a table."
    )

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        if "user" not in columns or "item" not in columns or len({*columns}) < len(columns):
            raise ValueError("columns name user, item and, if there are any, time and label, once")
        return columns

    @model_validator(mode="after")
    def _check(self) -> EdgeList:
        if self.format == "adjacency" and self.columns != ("user", "item"):
            raise ValueError("adjacency lists hold users and items alone: leave columns out")
        return self

    @cached_property
    def _files(self) -> Files:
        path = self.path.expanduser()
        return Files(path.parent if path.is_file() and path.suffix != ".zip" else path)

    @cached_property
    def _parts(self) -> dict[str, str | None]:
        """The files to read, and their published roles."""
        if self._files.path != self.path.expanduser():
            return {self.path.name: None}
        names = [name for name in self._files.names if not name.startswith(".")]
        if "train.txt" in names and "test.txt" in names:
            return {name: role for name, role in _ROLES.items() if name in names}
        if len(names) != 1:
            have = ", ".join(names) or "nothing"
            raise DataError(
                f"{self.path} is no edge list: it has {have}; known: one file, or train.txt and "
                "test.txt with or without valid.txt; or give one of the files as path"
            )
        return {names[0]: None}

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        """Users and items, and of times, labels and published roles what there is."""
        dtype: Literal["int64", "string"] = "int64" if self.ids == "int" else "string"
        table = "node_id" if self.same_nodes else None
        label = Feature(name="label", kind="dense", side="context", dtype="float32")
        role = Feature(name=_ROLE, kind="text", side="context")
        has_label, has_time = "label" in self.columns, "time" in self.columns
        has_role = any(self._parts.values())
        return Schema(
            user="user_id",
            item="item_id",
            label="label" if has_label else None,
            published_role=_ROLE if has_role else None,
            clock="time" if has_time else "none",
            unique=("user_id", "item_id", *(("time",) if has_time else ())),
            features=(
                Feature(name="user_id", kind="id", side="user", dtype=dtype, table=table),
                Feature(name="item_id", kind="id", side="item", dtype=dtype, table=table),
                *((label,) if has_label else ()),
                *((role,) if has_role else ()),
            ),
        )

    def read_events(self) -> Iterator[RawChunk]:
        """The edges in the files' order: training, validation, test."""
        for name, role in self._parts.items():
            file = self._files.label(name)
            with self._files.open(name) as stream:
                if self.format == "adjacency":
                    chunks = read_lists(stream, file, integers=self.ids == "int")
                else:
                    chunks = _read_pairs(stream, file, self.columns)
                for chunk in chunks:
                    yield self._finish(chunk, role)

    def _finish(self, chunk: RawChunk, role: str | None) -> RawChunk:
        """The chunk with what its file says of all its rows."""
        table = chunk.table
        if "time" not in self.columns:
            table = table.append_column("time", pa.array(np.zeros(len(table), dtype=np.int64)))
        if role is not None:
            table = table.append_column(_ROLE, pa.array([role]).take(np.zeros(len(table), int)))
        return chunk.with_table(table)

    def fingerprint(self) -> str:
        """From the options and the files."""
        identity = self._files.identity(list(self._parts))
        return self._digest(identity, without=frozenset({"path"}))

    @property
    def total_bytes(self) -> int | None:
        """Bytes of the files, unless they are packed."""
        if any(name.endswith(".gz") for name in self._parts):
            return None
        return sum(self._files.size(name) for name in self._parts)


def _read_pairs(stream: IO[bytes], file: str, columns: tuple[Column, ...]) -> Iterator[RawChunk]:
    """Lines with a value for each of `columns`, under the names that events give them."""
    delimiter = None
    for chunk in read_lines(stream, file, comment="#"):
        lines = chunk.table["line"].combine_chunks()
        if delimiter is None and len(lines):
            first = lines[0].as_py()
            delimiter = next((mark for mark in (",", "\t") if mark in first), " ")
        if delimiter == " ":
            values = pc.utf8_split_whitespace(lines)
        else:
            values = pc.split_pattern(lines, delimiter or ",")
        counts = np.asarray(pc.list_value_length(values))
        wrong = counts != len(columns)
        bad = list(chunk.bad)
        for at in np.flatnonzero(wrong):
            reason = f"{counts[at]} columns instead of {len(columns)} ({', '.join(columns)})"
            bad.append(BadRow(int(chunk.lines[at]), "", reason, lines[at].as_py()))
        values = values.filter(pa.array(~wrong))
        table = pa.table(
            {_NAMES[name]: pc.list_element(values, place) for place, name in enumerate(columns)}
        )
        bad.sort(key=lambda b: b.line)
        yield replace(chunk, table=table, lines=chunk.lines[~wrong], bad=bad)
