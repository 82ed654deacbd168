"""The events of a log by user: all that somebody did is read without reading what others did.

Beside the log's files lie `by_user/<number>.arrow`, a part for each, with the same events sorted by
the key of the user, then in the one order of events. A part is mapped into memory, where a user is
found by binary search; it is made once, when its events are first asked for, so that a day that
joins the log costs a day. Every row has a checksum, which is verified of those that are read and of
their neighbours: a bit that flips neither alters nor hides an event.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import POSITION
from feature_store.durable import locked, written
from feature_store.errors import DataError
from feature_store.event_log import EventLog, Numbers, numbers_of
from feature_store.hashing import keys_of, mix
from feature_store.parquet import read_parquet

_KEY, _CHECK = "_key", "_check"
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0xD6E8FEB86659FD93)


class ByUser:
    """The events of a log on the disk by user; parts that are missing are made."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.folder = log.on_disk / "by_user"
        self.made = 0
        """Events of the parts that were made now."""
        with locked(log.on_disk / "events"):
            self._make()

    def events_of(self, users: pa.Array) -> pa.Table:
        """All events of distinct users, in no order, with their positions.

        Raises DataError naming a part that is not what it was.
        """
        users = users.take(pc.sort_indices(users))
        keys = np.unique(keys_of(users))
        parts = [_taken(path, part, keys) for path, part in self._parts.items()]
        events = pa.concat_tables(parts) if parts else self._schema.empty_table()
        mine = pc.is_in(events[self.log.schema.user], value_set=users)  # keys may be equal
        return events.filter(mine).drop_columns([_KEY, _CHECK])

    @property
    def _schema(self) -> pa.Schema:
        log = self.log.schema.events_schema()
        own = {POSITION: pa.int64(), _KEY: pa.int64(), _CHECK: pa.uint64()}
        return pa.schema([*log, *(pa.field(name, kind) for name, kind in own.items())])

    @cached_property
    def _parts(self) -> dict[Path, pa.Table]:
        parts = {}
        for numbers in _whole(self._there()):
            path = self.folder / f"{numbers}.arrow"
            try:
                with pa.memory_map(str(path)) as source:
                    parts[path] = pa.ipc.open_file(source).read_all()
            except (OSError, pa.ArrowException):
                raise _altered(path) from None
        return parts

    def _there(self) -> Iterator[Numbers]:
        for path in self.folder.glob("[!.]*.arrow"):
            first, _, last = path.stem.partition("-")
            yield Numbers(int(first), int(last or first))

    def _make(self) -> None:
        """Make the parts of files of which some events are in none."""
        self.folder.mkdir(exist_ok=True)
        covered = {n for part in self._there() for n in range(part.first, part.last + 1)}
        schema = self.log.schema
        for path in self.log.files:
            numbers = numbers_of(path)
            if covered.issuperset(range(numbers.first, numbers.last + 1)):
                continue
            events = read_parquet(path).select([*schema.events_schema().names, POSITION])
            keys = pa.array(keys_of(events[schema.user].combine_chunks()), pa.int64())
            events = events.append_column(_KEY, keys)
            events = events.sort_by(
                [(_KEY, "ascending"), (schema.time, "ascending"), (POSITION, "ascending")]
            )
            events = events.append_column(_CHECK, pa.array(_checks(events)))
            self.made += events.num_rows
            with written(self.folder / f"{numbers}.arrow") as file:
                # one batch, since a batch is what is found in by a binary search
                whole = events.combine_chunks()
                with pa.ipc.new_file(file, whole.schema) as writer:
                    writer.write_table(whole)


def _whole(parts: Iterator[Numbers]) -> list[Numbers]:
    """Without those that others hold, as of files that were joined since."""
    kept: list[Numbers] = []
    for part in sorted(parts, key=lambda numbers: (numbers.first, -numbers.last)):
        if not kept or part.first > kept[-1].last:
            kept.append(part)
    return kept


def _taken(path: Path, part: pa.Table, keys: np.ndarray) -> pa.Table:
    """The rows of a part that have one of the sorted `keys`, and those beside them, between which
    the search has looked: so one whose key has changed is not missed."""
    held = part[_KEY].chunk(0).to_numpy() if part.num_rows else np.empty(0, np.int64)
    first = np.maximum(np.searchsorted(held, keys, "left") - 1, 0)
    last = np.minimum(np.searchsorted(held, keys, "right") + 1, len(held))
    lengths = last - first
    starts = np.repeat(first - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    rows = part.take(pa.array(np.unique(starts + np.arange(lengths.sum()))))
    if not np.array_equal(_checks(rows.drop_columns([_CHECK])), rows[_CHECK].to_numpy()):
        raise _altered(path)
    return rows


def _altered(path: Path) -> DataError:
    return DataError(f"{path} is not what was written: remove {path.parent}, and it is made again")


def _checks(rows: pa.Table) -> np.ndarray:
    """A checksum [n] uint64 of all that each row holds."""
    state = np.zeros(rows.num_rows, np.uint64)
    with np.errstate(over="ignore"):
        for column in rows.columns:
            state = mix((state ^ _digits(column.combine_chunks())) + _GAMMA)
    return state


def _digits(column: pa.Array) -> np.ndarray:
    """64 bits [n] of every value."""
    missing = column.is_null().to_numpy(zero_copy_only=False)
    kind = column.type
    if pa.types.is_floating(kind):
        numbers = column.fill_null(0.0).cast(pa.float64()).to_numpy()
        return np.where(missing, _NULL, numbers.view(np.uint64))
    if pa.types.is_list(kind):
        column = pa.array([str(value) for value in column.to_pylist()])
    elif pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    known = column.fill_null("" if pa.types.is_string(column.type) else 0)
    return np.where(missing, _NULL, keys_of(known).view(np.uint64))
