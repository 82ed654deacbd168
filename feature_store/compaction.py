"""Many small files of a log become few: the same events, in the same order, with the same
fingerprint.

A file that holds what several appends brought appears in one step, and hides theirs, which are
removed then: whatever stops this, the log stays whole, and the next compaction goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from feature_store.durable import locked
from feature_store.event_log import EventLog, Numbers, digests_of, numbers_of
from feature_store.parquet import open_parquet, read_parquet
from feature_store.storage import Place

FILE_ROWS = 1 << 20  # as an ingest writes them


class Compacted(NamedTuple):
    """Files of a log before and after."""

    before: int
    after: int


def compact(log: EventLog, file_rows: int = FILE_ROWS) -> Compacted:
    """Join files that follow each other while they hold at most `file_rows` events together; no
    more are in memory. Who reads the log meanwhile from files that are joined has to begin anew.

    Raises DataError for a log in object storage, and for files that cannot be read or written.
    """
    with locked(log.on_disk / "events"):
        before = log.files
        for run in _runs(before, file_rows):
            events = pa.concat_tables([read_parquet(path) for path in run])
            digests = [digest for path in run for digest in digests_of(path)]
            numbers = Numbers(numbers_of(run[0]).first, numbers_of(run[-1]).last)
            log.write(events, numbers, digests)
        after = log.files
        for path in set(log.all_files) - set(after):
            assert isinstance(path, Path)
            path.unlink()
    return Compacted(len(before), len(after))


def _runs(files: list[Place], file_rows: int) -> Iterator[list[Place]]:
    """Files that are to become one, two or more each time."""
    run: list[Place] = []
    rows = 0
    for path in files:
        count = open_parquet(path).metadata.num_rows
        if run and rows + count > file_rows:
            if len(run) > 1:
                yield run
            run, rows = [], 0
        run.append(path)
        rows += count
    if len(run) > 1:
        yield run
