"""Known users: their newest histories and their features, so that an id is question enough.

A bundle brings those of its export in a file. Stores that also take what happens since then are
those of `recsys.online`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import time_of
from feature_store.errors import DataError
from feature_store.ids import as_ids
from feature_store.vocabulary import Vocabulary


class KnownUsers(Protocol):
    """The newest histories and the features of users, as raw values.

    Besides the users' ids and features a row has one or more lists of items, oldest first, and
    beside each list `h` its `h_time`, the seconds since 1970 of the same events.
    """

    @property
    def schema(self) -> pa.Schema:
        """The columns of a row, the ids first or wherever they lie."""

    @property
    def column_names(self) -> list[str]:
        """What is known of a user."""

    def users(self) -> pa.Array:
        """The ids of all of them."""

    def of(
        self,
        users: pa.Array,
        columns: Sequence[str] | None = None,
        *,
        before: int | None = None,
    ) -> pa.Table:
        """A row for each of `users`, of all columns or of some; of unknown users all null.

        Lists then hold only events of a second since 1970 `before` that one. Raises DataError for
        ids of another type.
        """

    def append(self, events: pa.Table) -> int:
        """Add events, rows as an event log has them, each at its time and at most once; returns how
        many of them are new and held.

        Raises DataError, and adds none, where one does not fit, or where nothing can be added.
        """


def check_columns(users: KnownUsers, expected: pa.Schema) -> None:
    """Raises DataError naming the first column of `expected` that is not known of `users`, or is
    of another type there."""
    for field in expected:
        have = users.schema.field(field.name).type if field.name in users.column_names else None
        if have != field.type:
            what = "lacks" if have is None else f"has as {have}"
            raise DataError(
                f"the store of users {what} the column {field.name!r}, which is {field.type} in "
                "the bundle: make a store for this bundle by `recsys online sync` of its run"
            )


def earlier(rows: pa.Table, before: int) -> pa.Table:
    """The rows of users, their lists cut down to events of a second `before` that one."""
    names = rows.column_names
    for name in [name for name in names if time_of(name) in names]:
        times = rows.column(time_of(name)).combine_chunks()
        kept = pc.fill_null(pc.less(pc.list_flatten(times), before), False)
        parents = pc.list_parent_indices(times).filter(kept)
        counts = np.bincount(parents.to_numpy(), minlength=len(times))
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        absent = times.is_null()
        for column in (name, time_of(name)):
            values = pc.list_flatten(rows.column(column).combine_chunks()).filter(kept)
            lists = pa.ListArray.from_arrays(offsets, values, mask=absent)
            rows = rows.set_column(names.index(column), column, lists)
    return rows


class UsersFile:
    """Users in an Arrow file that is mapped into memory: besides the ids, only the rows that are
    asked for are read. `key` names the column of the ids."""

    def __init__(self, path: Path, key: str) -> None:
        self._key = key
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            batches = [reader.get_batch(place) for place in range(reader.num_record_batches)]
            for batch in batches:  # what is asked for later is read without looking at it
                batch.validate(full=True)
        except (OSError, pa.ArrowInvalid) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path} cannot be read: {reason}") from None
        if key not in reader.schema.names:
            raise DataError(f"{path} has no column {key!r} of users: export the bundle again")
        self._schema = reader.schema
        self._batches = batches
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])

    @property
    def schema(self) -> pa.Schema:
        """The columns of a row."""
        return self._schema

    @property
    def column_names(self) -> list[str]:
        """What is known of a user."""
        return list(self._schema.names)

    def append(self, events: pa.Table) -> int:
        """Raises DataError: a bundle is as it was exported."""
        raise DataError(
            "the users of a bundle are read only, and take no events: sync them to a store, "
            "`recsys online sync RUN sqlite:///users.db`, and serve with it"
        )

    def users(self) -> pa.Array:
        """The ids of all of them, in the file's order."""
        return self._ids.values

    def of(
        self,
        users: pa.Array,
        columns: Sequence[str] | None = None,
        *,
        before: int | None = None,
    ) -> pa.Table:
        """A row for each of `users`, of all columns or of some; of unknown users all null. Lists
        then hold only events of a second `before` that one."""
        if before is not None:
            rows = earlier(self.of(users), before)
            return rows if columns is None else rows.select(list(columns))
        wanted = self._cast(users)
        places = self._ids.encode(wanted) - 1
        order = np.argsort(places, kind="stable")  # rows of one batch side by side
        order = order[np.searchsorted(places[order], 0) :]
        bounds = np.searchsorted(places[order], self._starts)
        names = self.column_names if columns is None else list(columns)
        parts = [
            batch.select(names).take(pa.array(places[order[first:last]] - start))
            for batch, start, first, last in zip(
                self._batches, self._starts, bounds, bounds[1:], strict=False
            )
            if last > first
        ]
        schema = pa.schema([self._schema.field(name) for name in names])
        rows = pa.Table.from_batches(parts, schema).combine_chunks()
        back = np.full(len(places), -1)
        back[order] = np.arange(len(order))
        return rows.take(pa.array(back, mask=back < 0))

    @cached_property
    def _ids(self) -> Vocabulary:
        parts = [batch.column(self._key) for batch in self._batches]
        kind = self._schema.field(self._key).type
        return Vocabulary(pa.concat_arrays(parts) if parts else pa.array([], kind))

    def _cast(self, users: pa.Array) -> pa.Array:
        kind = self._schema.field(self._key).type
        try:
            return as_ids(users, kind)
        except (pa.ArrowException, ValueError) as error:
            raise DataError(f"users must be of type {kind}: {error}") from None
