"""Known users: what is known of a user at the export, so that an id is question enough."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from feature_store.errors import DataError
from feature_store.ids import as_ids
from feature_store.vocabulary import Vocabulary


class KnownUsers(Protocol):
    """The newest histories and the features of users, as raw values."""

    @property
    def column_names(self) -> list[str]:
        """What is known of a user."""

    def users(self) -> pa.Array:
        """The ids of all of them."""

    def of(self, users: pa.Array, columns: Sequence[str] | None = None) -> pa.Table:
        """A row for each of `users`, of all columns or of some; of unknown users all null.

        Raises DataError for ids of another type.
        """


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
    def column_names(self) -> list[str]:
        """What is known of a user."""
        return list(self._schema.names)

    def users(self) -> pa.Array:
        """The ids of all of them, in the file's order."""
        return self._ids.values

    def of(self, users: pa.Array, columns: Sequence[str] | None = None) -> pa.Table:
        """A row for each of `users`, of all columns or of some; of unknown users all null."""
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
