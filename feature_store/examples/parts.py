"""Sorted events -> files of examples, a part at a time, wherever it lies; and the parts as one.

The engine sorts and hands out parts; nothing here knows of it, so that this can be sent to them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import USER_ROW, is_raw, raw_of
from feature_store.examples.blocks import Block, blocks_of_users
from feature_store.examples.listed import ListsOf
from feature_store.examples.row_groups import RowGroups
from feature_store.examples.rows import event_rows, request_rows, sequence_rows, serving_rows
from feature_store.examples.spec import RowsOf
from feature_store.examples.users import UserFeatures
from feature_store.negatives import DrawnNegatives
from feature_store.protocols import SHOWN, TRAIN
from feature_store.schema import Schema
from feature_store.vocabulary import Vocabulary

SERVING = "serving"
_USERS_A_GROUP, _USERS_A_FILE, _EVENTS_A_GROUP = 1 << 10, 1 << 18, 1 << 16


class Written(NamedTuple):
    """A file, or a folder of numbered files, and how many rows there are in it."""

    path: str
    rows: int


@dataclass(frozen=True)
class Copying:
    """Writes the rows of a part as they come, into the `folder`."""

    folder: Path
    row_group_rows: int
    file_rows: int | None

    def __call__(self, batches: Iterator[pa.RecordBatch], name: str) -> Written:
        """What was written."""
        path = self.folder / f"{name}.parquet"
        with RowGroups(path, self.row_group_rows, self.file_rows) as file:
            for batch in batches:
                file.write(pa.Table.from_batches([batch]))
        return Written(str(path), file.rows)


@dataclass(frozen=True)
class RowsOfParts:
    """Writes the rows of every role, and those for serving, in one pass over a part of the events,
    which come by user, into the `folder`.

    `users` holds the features of users, and `raw_users` their ids and what the catalogue says of
    them. `named` are features whose raw ids lie beside what is asked in validation and test: only
    there are their codes turned back. Of rows for `serving` only those of users that are `served`,
    by default all.
    """

    schema: Schema
    rows_of: RowsOf
    context: tuple[str, ...]
    users: UserFeatures
    raw_users: UserFeatures
    named: tuple[str, ...]
    items: Vocabulary
    folder: Path
    train_roles: tuple[str, ...]
    history_length: int
    since: int | None
    lead: int
    negatives: DrawnNegatives | None
    lists_of: ListsOf | None
    grows: bool
    served: np.ndarray | None

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of which there are rows."""
        return (TRAIN, *(role for role in SHOWN if role not in self.train_roles))

    @property
    def user(self) -> str:
        """The column by which events come."""
        return USER_ROW if self.users.codes is None else raw_of(self.schema.user)

    def __call__(self, batches: Iterator[pa.RecordBatch], name: str) -> dict[str, Written]:
        """What was written of each role, and of SERVING."""
        (own := self.folder / name).mkdir()
        with ExitStack() as stack:
            files = {role: stack.enter_context(self._file(own, role)) for role in self.roles}
            serving = stack.enter_context(RowGroups(own / f"{SERVING}.parquet", _USERS_A_GROUP))
            for block in blocks_of_users(batches, self.user):
                for role, file in files.items():
                    rows = self._rows(block, role)
                    file.write(self._beside(rows, role))
                known = serving_rows(block, self.rows_of)
                raw = self._raw(known, block)
                if self.served is not None:
                    raw = raw.filter(pc.is_in(known[USER_ROW], pa.array(self.served)))
                serving.write(raw)
        every = {**files, SERVING: serving}
        return {n: Written(str(own / f"{n}.parquet"), file.rows) for n, file in every.items()}

    def per_event(self, role: str) -> bool:
        """Whether a row is an event."""
        return self.rows_of.labels or (role == TRAIN and self.rows_of.per == "event")

    def _file(self, folder: Path, role: str) -> RowGroups:
        path = folder / f"{role}.parquet"
        if self.per_event(role):
            return RowGroups(path, _EVENTS_A_GROUP)
        return RowGroups(path, _USERS_A_GROUP, _USERS_A_FILE)

    def _rows(self, block: Block, role: str) -> pa.Table:
        of_train = role == TRAIN
        since = self.since if of_train else None
        if self.per_event(role):
            own = (role,) if self.rows_of.labels and self.grows else ()
            return event_rows(
                block,
                self.schema,
                self.rows_of,
                self.context,
                asked=self.train_roles if of_train else (role,),
                shown=self.train_roles if of_train else (*SHOWN[role], *own),
                length=self.history_length,
                since=since,
                delay=self.rows_of.delay if of_train else 0,
                negatives=self.negatives,
                lists_of=self.lists_of,
            )
        if of_train:
            roles = self.train_roles
            return sequence_rows(block, self.schema, self.rows_of, roles, since, self.lead)
        return request_rows(block, self.schema, self.rows_of, role)

    def _beside(self, rows: pa.Table, role: str) -> pa.Table:
        """Rows of a role with the features of their users."""
        users = rows[self.schema.user]
        named = {} if role == TRAIN else {raw_of(name): name for name in self.named}
        unasked = [n for n in rows.column_names if is_raw(n) and n not in named]
        rows = _beside(rows.drop_columns(unasked), self.users.of(users))
        there = set(rows.column_names)
        if lacking := {n: of for n, of in named.items() if n not in there and of in there}:
            raw = self.raw_users.of(users)
            rows = _beside(rows, pa.table({n: raw[of] for n, of in lacking.items()}))
        return rows

    def _raw(self, rows: pa.Table, block: Block) -> pa.Table:
        """Rows for serving with raw ids in place of rows of vocabularies."""
        for name in self.rows_of.requested:
            lists = rows[name].combine_chunks()
            ids = self.items.decode(lists.values.to_numpy())
            place = rows.column_names.index(name)
            rows = rows.set_column(place, name, pa.ListArray.from_arrays(lists.offsets, ids))
        users = self.raw_users.of(rows[USER_ROW])
        ids = users[self.schema.user]
        if self.users.codes is not None:
            ids = block.rows.column(raw_of(self.schema.user)).take(pa.array(block.starts[:-1]))
        rows = rows.set_column(0, self.schema.user, ids)
        return _beside(rows, users.drop_columns([self.schema.user]))


def join(parts: Sequence[Written], path: Path) -> None:
    """Make one table of parts in their order, without writing any anew: a file at `path` where
    there is a single one, or a folder of numbered files there. In a folder that has files already
    further numbers follow that of `path`."""
    kept = [part for part in parts if part.rows] or parts[:1]
    if len(kept) == 1:
        os.replace(kept[0].path, path)
        return
    files = [file for part in kept for file in _files(Path(part.path))]
    first, folder = 0, path
    if path.parent.suffix == path.suffix:
        first, folder = int(path.stem), path.parent
    else:
        path.mkdir()
    for number, file in enumerate(files, first):
        os.replace(file, folder / f"{number:05d}.parquet")


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _beside(rows: pa.Table, more: pa.Table) -> pa.Table:
    for name in more.column_names:
        rows = rows.append_column(more.schema.field(name), more[name])
    return rows
