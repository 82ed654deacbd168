"""Checks over a whole log: repeated rows, and whom and what its events name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from feature_store.catalogue import Catalogue, CatalogueSide
from feature_store.columns import POSITION
from feature_store.engine import Engine
from feature_store.event_log import EventLog
from feature_store.ingest.quarantine import Quarantine
from feature_store.parquet import read_parquet
from feature_store.sources.base import BadRow, raw_rows

_FIRST, _COUNT = "_first_position", "_count"


class LineMap:
    """Where stored rows came from: position in the log -> file and line, kept as runs."""

    def __init__(self) -> None:
        self._files: list[str] = []
        self._rows = 0
        self._runs: list[np.ndarray] = []  # each [runs, 3]: first position, first line, file

    def add(self, file: str, lines: np.ndarray) -> None:
        """The next `len(lines)` rows came from these lines of `file`."""
        if not len(lines):
            return
        if not self._files or self._files[-1] != file:
            self._files.append(file)
        starts = np.flatnonzero(np.diff(lines, prepend=lines[0] - 2) != 1)
        number = np.full(len(starts), len(self._files) - 1)
        self._runs.append(np.stack([starts + self._rows, lines[starts], number], axis=1))
        self._rows += len(lines)

    def find(self, positions: np.ndarray) -> list[tuple[str, int]]:
        """File and line of each position."""
        runs = np.concatenate(self._runs)
        at = np.searchsorted(runs[:, 0], positions, side="right") - 1
        lines = runs[at, 1] + positions - runs[at, 0]
        return [(self._files[f], int(n)) for f, n in zip(runs[at, 2], lines, strict=True)]


def add_repeats(
    rows: pa.Table,
    positions: np.ndarray,
    keys: Sequence[str],
    lines: LineMap,
    aside: Quarantine,
    *,
    more: int = 0,
) -> None:
    """Quarantine `rows`, stored at `positions`, because earlier ones hold the same `keys`."""
    raws = raw_rows(rows, np.arange(rows.num_rows))
    values = rows.select(list(keys)).to_pylist()
    by_file: dict[str, list[BadRow]] = {}
    for (file, line), raw, value in zip(lines.find(positions), raws, values, strict=True):
        shown = ", ".join(str(value[key]) for key in keys)
        bad = BadRow(line, ", ".join(keys), "repeats an earlier row", raw, shown)
        by_file.setdefault(file, []).append(bad)
    for file, bad_rows in by_file.items():
        aside.add(file, bad_rows, more=more + len(positions) - len(bad_rows))


def set_repeats_aside(engine: Engine, log: EventLog, lines: LineMap, aside: Quarantine) -> EventLog:
    """Quarantine the events that repeat an earlier one in the columns of `schema.unique`.

    Raises DataError, naming the first such event, when rows are not to be set aside.
    """
    keys = list(log.schema.unique)
    if not keys or not log.files:
        return log
    events = engine.scan(log.files)
    firsts = (
        events.group_by(keys)
        .agg(**{_COUNT: events.count(), _FIRST: events[POSITION].min()})
        .filter(lambda t: t[_COUNT] > 1)
        .drop(_COUNT)
    )
    repeats = events.join(firsts, keys)
    repeats = repeats.filter(repeats[POSITION] > repeats[_FIRST])
    total = _count(engine, repeats)
    if not total:
        return log
    repeated: list[np.ndarray] = []
    columns = [*log.schema.events_schema().names, POSITION]
    for batch in engine.stream(repeats.order_by(POSITION).select(columns)):
        rows = pa.Table.from_batches([batch])
        positions = rows[POSITION].to_numpy()
        rest = total - len(positions) - sum(len(part) for part in repeated)
        add_repeats(rows.drop_columns([POSITION]), positions, keys, lines, aside, more=rest)
        repeated.append(positions)
    return _without(log, np.concatenate(repeated))


def _without(log: EventLog, positions: np.ndarray) -> EventLog:
    """The log written anew without the events at `positions`."""
    store = log.on_disk
    folder = store / "events.without"
    kept = EventLog.create(folder, log.schema)
    for path in log.files:
        events = read_parquet(path).sort_by(POSITION)
        keep = ~np.isin(events[POSITION].to_numpy(), positions)
        kept.append(events.filter(pa.array(keep)).drop_columns([POSITION]))
    shutil.rmtree(store / "events")
    os.rename(folder / "events", store / "events")
    shutil.rmtree(folder)
    return log


def events_unknown_to(engine: Engine, log: EventLog, side: CatalogueSide) -> int:
    """How many events have an item (user) that the catalogue does not list."""
    path = Catalogue(log.folder, log.schema).path(side)
    key = getattr(log.schema, side)
    if not path.exists() or not log.files:
        return 0
    unlisted = engine.scan(log.files).anti_join(engine.scan([path]), key)
    return _count(engine, unlisted)


def distinct(engine: Engine, log: EventLog, side: CatalogueSide) -> int:
    """How many items (users) the events name."""
    events = engine.scan(log.files)
    ids = events[getattr(log.schema, side)]
    return int(engine.collect(events.aggregate(n=ids.nunique()))["n"][0].as_py())


def _count(engine: Engine, rows: ir.Table) -> int:
    return int(engine.collect(rows.aggregate(n=rows.count()))["n"][0].as_py())
