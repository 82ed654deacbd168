"""An event log -> a store: whole the first time, and from then on what was added since."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from feature_store.catalogue import Catalogue
from feature_store.columns import POSITION
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.parquet import open_parquet, read_batches
from feature_store.progress import Progress, stage
from feature_store.storage import Place, digest_of
from recsys.online.events import OCCURRENCE
from recsys.online.store import Mark, UserStore

BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Synced:
    """What a sync did: events that were read, those of them that are new and held, and users whose
    features were written."""

    read: int
    added: int
    features: int


class _Place(NamedTuple):
    """How far a log was read: whole files, rows of the next one; and the fingerprint of all these
    files."""

    files: int
    rows: int
    fingerprint: str


def sync(
    log: EventLog,
    store: UserStore,
    *,
    engine: EngineConfig | None = None,
    progress: Progress | None = None,
    anew: bool = False,
) -> Synced:
    """Add the events of a log that were not read before, in batches, and the features of its users
    where those have changed.

    How far it came is remembered together with every batch, for each log by what its first file
    holds: whatever stops a sync, the next one goes on. With `anew` the log is read from its
    beginning, and what the store holds is known again. `progress` is told of the rows of the log
    that were read by now.

    Raises DataError for an empty log, and one whose columns are not those of the store.
    """
    if not log.files:
        raise DataError(f"{log.folder} holds no events: ingest some first")
    _check_columns(log, store)
    prints = log.fingerprints
    name = f"log:{log.origin}"
    start = _Place(0, 0, prints[0])
    if not anew and (text := store.remembered(name)) is not None:
        start = _went_on(_Place(*json.loads(text)), prints) or start
    repeats = _Repeats.of(log, store, start.files, engine)
    rows = sum(map(_rows, log.files[: start.files])) + start.rows
    read = added = 0
    for place, events in _batches(log, start, prints):
        added += store.append(repeats.beside(events), mark=Mark(name, json.dumps(place)))
        read += events.num_rows
        if progress is not None:
            progress(rows + read, 0)
    features = _sync_features(log, store, name)
    store.sweep()
    return Synced(read, added, features)


def _went_on(place: _Place, prints: list[str]) -> _Place | None:
    """The place, if the log still begins with what was read."""
    files = place.files + (place.rows > 0)
    if files < len(prints) and prints[files] == place.fingerprint:
        return place
    if place.rows == 0 and place.fingerprint in prints:  # some of its files were joined since
        return place._replace(files=prints.index(place.fingerprint))
    return None


def _check_columns(log: EventLog, store: UserStore) -> None:
    """Raises DataError naming the column that the store asks for and the log does not have."""
    rules, have = store.rules, log.schema.events_schema()
    for name in rules.asked:
        wanted = rules.log.events_schema().field(name).type
        kind = have.field(name).type if name in have.names else None
        if kind != wanted:
            lacks = "has no column" if kind is None else f"has as {kind} the column"
            raise DataError(f"{log.folder} {lacks} {name!r}, which is {wanted} in {store.shown}")


def _batches(log: EventLog, start: _Place, prints: list[str]) -> Iterator[tuple[_Place, pa.Table]]:
    """The events behind a place in the log, file by file, and the place behind each batch."""
    for number, path in enumerate(log.files):
        if number < start.files:
            continue
        total = _rows(path)
        skip, row = (start.rows if number == start.files else 0), 0
        for batch in read_batches(path, BATCH_ROWS):
            events = batch.slice(max(skip - row, 0))
            row += batch.num_rows
            if not events.num_rows:
                continue
            files, rows = (number + 1, 0) if row == total else (number, row)
            yield _Place(files, rows, prints[number + 1]), pa.Table.from_batches([events])


@dataclass(frozen=True)
class _Repeats:
    """Events of a log that are equal to an earlier one in all that tells events apart: their
    positions [n], ascending, and how many such came before each [n]."""

    positions: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(
        cls, log: EventLog, store: UserStore, first: int, config: EngineConfig | None
    ) -> _Repeats:
        """Those of the files from the `first` on, which may repeat events of any file."""
        files = log.files
        if store.rules.log.unique or first == len(files):
            return cls(np.empty(0, np.int64), np.empty(0, np.int64))
        import ibis

        days = [_days(path) for path in files]
        begin = min(day for day, _ in days[first:])
        end = max(day for _, day in days[first:])
        near = [
            path
            for path, (of_first, of_last) in zip(files, days, strict=True)
            if of_first <= end and begin <= of_last
        ]
        with stage(f"look for equal events in {log.folder}"), Engine(config) as engine:
            events = engine.scan(near)
            alike = [events[name] for name in store.rules.identity]
            before = ibis.row_number().over(group_by=alike, order_by=events[POSITION])
            counted = events.select(position=events[POSITION], before=before)
            repeats = counted.filter(counted["before"] > 0).order_by("position")
            rows = engine.collect(repeats)
        return cls(rows["position"].to_numpy(), rows["before"].to_numpy())

    def beside(self, events: pa.Table) -> pa.Table:
        """Events of the log with the column OCCURRENCE."""
        positions = events.column(POSITION).to_numpy()
        counts = np.zeros(len(positions), np.int64)
        if len(self.positions):
            place = np.searchsorted(self.positions, positions).clip(max=len(self.positions) - 1)
            same = self.positions[place] == positions
            counts[same] = self.counts[place[same]]
        return events.append_column(OCCURRENCE, pa.array(counts))


def _rows(path: Place) -> int:
    rows: int = open_parquet(path).metadata.num_rows
    return rows


def _days(path: Place) -> tuple[date, date]:
    first, last = (date.fromisoformat(day) for day in path.stem.split("_")[:2])
    return first, last


def _sync_features(log: EventLog, store: UserStore, name: str) -> int:
    """Write the features of the log's users, if they are not those that were written before."""
    path = Catalogue(log.folder, log.schema).path("user")
    if not path.exists() or not store.rules.features.names:
        return 0
    mark = Mark(f"features of {name}", digest_of(path))
    if store.remembered(mark.name) == mark.value:
        return 0
    users = 0
    for batch in read_batches(path, BATCH_ROWS):
        store.put_features(pa.Table.from_batches([batch]))
        users += batch.num_rows
    store.remember(mark)
    return users
