"""The events of a log by user: all that somebody did is read without reading what others did.

Beside the log's files lie `by_user/<number>.arrow`, a part for each, with the same events sorted by
the key of the user, then in the one order of events. A part is mapped into memory, where a user is
found by binary search; it is made once, when its events are first asked for, so that a day that
joins the log costs a day.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.columns import POSITION
from feature_store.durable import locked, written
from feature_store.event_log import EventLog, Numbers, numbers_of
from feature_store.hashing import keys_of
from feature_store.parquet import read_parquet

_KEY = "_key"


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
        """All events of distinct users, in no order, with their positions."""
        users = users.take(pc.sort_indices(users))
        keys = np.unique(keys_of(users))
        parts = [_taken(part, keys) for part in self._parts]
        events = pa.concat_tables(parts) if parts else self._schema.empty_table()
        mine = pc.is_in(events[self.log.schema.user], value_set=users)  # keys may be equal
        return events.filter(mine).drop_columns([_KEY])

    @property
    def _schema(self) -> pa.Schema:
        log = self.log.schema.events_schema()
        return pa.schema([*log, pa.field(POSITION, pa.int64()), pa.field(_KEY, pa.int64())])

    @cached_property
    def _parts(self) -> list[pa.Table]:
        parts = []
        for numbers in _whole(self._there()):
            with pa.memory_map(str(self.folder / f"{numbers}.arrow")) as source:
                parts.append(pa.ipc.open_file(source).read_all())
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


def _taken(part: pa.Table, keys: np.ndarray) -> pa.Table:
    """The rows of a part that have one of the sorted `keys`."""
    held = part[_KEY].chunk(0).to_numpy() if part.num_rows else np.empty(0, np.int64)
    first, last = (np.searchsorted(held, keys, side) for side in ("left", "right"))
    lengths = last - first
    starts = np.repeat(first - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return part.take(pa.array(starts + np.arange(lengths.sum())))
