"""Rows sorted by user, taken in a stream: blocks of whole users, and lists made of their rows.

An ordered list aggregate of an engine holds buffers for every user at once. Rows that come
sorted need none: a user's rows are neighbours, and a list is a slice of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Block:
    """All rows [n] of U users, sorted by user; user u has rows starts[u] to starts[u + 1].

    Attributes:
        rows: the rows, each column in one piece.
        starts: [U + 1], the last of them n.
    """

    rows: pa.Table
    starts: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """A column of numbers or booleans [n]."""
        return self.rows.column(name).to_numpy()

    @property
    def sizes(self) -> np.ndarray:
        """Rows of each user [U]."""
        return np.diff(self.starts)

    @property
    def user_of_row(self) -> np.ndarray:
        """The place in the block [n], from 0, of the user of each row."""
        return np.repeat(np.arange(len(self.starts) - 1), self.sizes)


def blocks_of_users(batches: Iterable[pa.RecordBatch], user: str) -> Iterator[Block]:
    """Blocks of whole users from batches that are sorted by the column `user`.

    The last user of a batch waits for the next one; what is in memory is bounded by a batch and
    the longest user. Without any rows there is one empty block, which says what columns there are.
    """
    waiting: list[pa.RecordBatch] = []
    schema: pa.Schema | None = None
    given = False
    for batch in batches:
        schema = batch.schema
        if not batch.num_rows:
            continue
        last = _last_start(batch.column(user))
        if last == 0 and waiting and _first(waiting[-1], user) == _first(batch, user):
            waiting.append(batch)  # the same user all through
            continue
        if waiting or last:
            yield _block([*waiting, batch.slice(0, last)], user)
            given = True
        waiting = [batch.slice(last)]
    if waiting:
        yield _block(waiting, user)
    elif not given and schema is not None:
        yield _block([pa.RecordBatch.from_pylist([], schema)], user)


def spans(values: pa.Array, begin: np.ndarray, end: np.ndarray) -> pa.ListArray:
    """Lists [m], the i-th of them values[begin[i]:end[i]]."""
    lengths = end - begin
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    index = np.repeat(begin - offsets[:-1], lengths) + np.arange(offsets[-1])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.take(pa.array(index)))


def _first(batch: pa.RecordBatch, user: str) -> object:
    return batch.column(user)[0].as_py()


def _changes(column: pa.Array) -> np.ndarray:
    """Rows [..] from 1 on whose value is not that of the row before."""
    differs = pc.not_equal(column.slice(1), column.slice(0, len(column) - 1))
    return np.flatnonzero(differs.to_numpy(zero_copy_only=False)) + 1


def _last_start(column: pa.Array) -> int:
    """The first row of the last user of a batch."""
    return int(_changes(column).max(initial=0))


def _block(batches: list[pa.RecordBatch], user: str) -> Block:
    rows = pa.Table.from_batches(batches).combine_chunks()
    count = rows.num_rows
    if not count:
        return Block(rows, np.zeros(1, dtype=np.int64))
    starts = _changes(rows.column(user).chunk(0))
    return Block(rows, np.concatenate([[0], starts, [count]]))
