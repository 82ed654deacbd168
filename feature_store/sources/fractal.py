"""Fractal: MovieLens grown by itself, to as many events as a test of size needs.

Users and items are copied, as in a Kronecker product of the matrix of ratings with a small one
(Belletti et al., "Scalable Realistic Recommendation Datasets through Fractal Expansions", 2019):
copy a of the users has, in copy b of the items, each rating with a probability of its own. The
small matrix is not theirs, of singular vectors, but how dense the ratings are between groups of
users by activity and of items by popularity; so the activity of grown users, and the popularity
of grown items, are products of two that MovieLens has, and as unequal as there and more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from feature_store.conform import conform
from feature_store.errors import DataError
from feature_store.schema import Schema
from feature_store.sources.base import RawChunk, Source
from feature_store.sources.movielens import MovieLens

_VERSION = 1  # of what is generated from equal options: raise it when that changes
_HALVINGS = 60  # of the interval in which the scale of the probabilities lies


class Fractal(Source):
    """Ratings of MovieLens by `user_copies` times its users of `item_copies` times its items.

    The same for the same seed, block by block, in the memory of MovieLens itself. All copies of a
    rating have its moment.
    """

    source: Literal["fractal"] = "fractal"
    path: Path = Field(description="MovieLens: folder or the published zip.")
    events: int = Field(10_000_000, ge=1, description="About how many events there are to be.")
    user_copies: int = Field(16, ge=1, description="How many times as many users.")
    item_copies: int = Field(32, ge=1, description="How many times as many items.")
    seed: int = Field(1, ge=0, description="Of which ratings each copy has.")

    @cached_property
    def _base(self) -> MovieLens:
        return MovieLens(path=self.path)

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        """That of MovieLens."""
        return self._base.schema

    def read_events(self) -> Iterator[RawChunk]:
        """A copy of the users after another, and within it of the items, each in the file's
        order. Raises DataError where so many copies have fewer ratings than are asked for."""
        row = 1
        for (copy, of_items), kept in self._kept():
            table = _shifted(self._ratings.filter(pa.array(kept)), "user_id", copy * self._users)
            table = _shifted(table, "item_id", of_items * self._items)
            yield RawChunk(table, "grown ratings", np.arange(row, row + table.num_rows))
            row += table.num_rows

    def read_items(self) -> Iterator[RawChunk]:
        """Every copy of the items, numbered in its titles."""
        known = _typed(self._base.read_items(), self.schema.side_schema("item"))
        for copy in range(self.item_copies):
            table = _shifted(known, "item_id", copy * self._items)
            if copy:
                titles = pc.binary_join_element_wise(known["title"], f" #{copy + 1}", "")
                table = table.set_column(table.column_names.index("title"), "title", titles)
            first = 1 + copy * known.num_rows
            yield RawChunk(table, "grown items", np.arange(first, first + known.num_rows))

    def read_users(self) -> Iterator[RawChunk]:
        """Every copy of the users, where MovieLens says anything of them."""
        known = _typed(self._base.read_users(), self.schema.side_schema("user"))
        for copy in range(self.user_copies if known.num_rows else 0):
            first = 1 + copy * known.num_rows
            lines = np.arange(first, first + known.num_rows)
            yield RawChunk(_shifted(known, "user_id", copy * self._users), "grown users", lines)

    def fingerprint(self) -> str:
        """From MovieLens' own and the options."""
        return self._digest(_VERSION, self._base.fingerprint(), without=frozenset({"path"}))

    @property
    def total_rows(self) -> int:
        """About how many events there will be."""
        return self.events

    @cached_property
    def _ratings(self) -> pa.Table:
        return _typed(self._base.read_events(), self.schema.events_schema()).combine_chunks()

    @cached_property
    def _users(self) -> int:
        """By how much the number of a user rises from copy to copy."""
        known = _typed(self._base.read_users(), self.schema.side_schema("user"))
        return _highest(self._ratings["user_id"], known["user_id"])

    @cached_property
    def _items(self) -> int:
        known = _typed(self._base.read_items(), self.schema.side_schema("item"))
        return _highest(self._ratings["item_id"], known["item_id"])

    @cached_property
    def probabilities(self) -> np.ndarray:
        """How likely each copy of the users has a rating in each copy of the items [user copies,
        item copies]. Raises DataError where all of them together are too few."""
        rows = self._ratings.num_rows
        if self.events > rows * self.user_copies * self.item_copies:
            raise DataError(
                f"{self.user_copies} x {self.item_copies} copies of {rows:,} ratings are fewer "
                f"than {self.events:,}: raise data.user_copies or data.item_copies"
            )
        density = densities(
            self._ratings["user_id"].to_numpy(),
            self._ratings["item_id"].to_numpy(),
            self.user_copies,
            self.item_copies,
        )
        return scaled(density, self.events / rows)

    def _kept(self) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        for block, probability in np.ndenumerate(self.probabilities):
            random = np.random.default_rng([self.seed, *block])
            kept = random.random(self._ratings.num_rows) < probability
            if kept.any():
                yield (block[0], block[1]), kept


def densities(users: np.ndarray, items: np.ndarray, many: int, kinds: int) -> np.ndarray:
    """Ratings over pairs [many, kinds] of the most to the least active users, and the most to the
    least popular items, in so many groups of equal size; from both ids of every rating [n]."""
    of_user, of_item = _Groups(users, many), _Groups(items, kinds)
    ratings = np.zeros((many, kinds))
    np.add.at(ratings, (of_user.group[of_user.place], of_item.group[of_item.place]), 1)
    return ratings / np.maximum(np.outer(of_user.sizes, of_item.sizes), 1)


def scaled(density: np.ndarray, total: float) -> np.ndarray:
    """Densities times a number, no higher than 1 each, so that they sum to `total`."""
    shape = np.maximum(density / density.max(), 1e-6)
    low, high = 0.0, 1 / shape.min()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if np.minimum(shape * middle, 1).sum() < total:
            low = middle
        else:
            high = middle
    return np.minimum(shape * high, 1)


class _Groups:
    """Ids in groups of equal size, those that come most often first."""

    def __init__(self, ids: np.ndarray, count: int) -> None:
        known, self.place, often = np.unique(ids, return_inverse=True, return_counts=True)
        self.group = np.empty(len(known), dtype=np.int64)
        self.group[np.argsort(-often, kind="stable")] = np.arange(len(known)) * count // len(known)
        self.sizes = np.bincount(self.group, minlength=count)


def _typed(chunks: Iterable[RawChunk], schema: pa.Schema) -> pa.Table:
    """All rows, of the types that a store keeps. Raises DataError naming the first that is not."""
    tables = [schema.empty_table()]
    for chunk in chunks:
        checked = conform(chunk.table, schema)
        for bad in chunk.bad[:1]:
            raise DataError(f"{chunk.file}:{bad.line}: {bad.reason}: {bad.raw[:80]!r}")
        for problem in checked.problems[:1]:
            raise DataError(
                f"{chunk.file}:{chunk.lines[problem.row]}, column {problem.column!r}: "
                f"{problem.value!r} {problem.reason}"
            )
        tables.append(checked.table)
    return pa.concat_tables(tables)


def _shifted(table: pa.Table, column: str, by: int) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, pc.add(table[column], by))


def _highest(*ids: pa.ChunkedArray) -> int:
    return max(pc.max(of).as_py() or 0 for of in ids)
