"""Runs: how a sequence of units is put together from an old one and from new units.

An array [R, 2] of (start, count): so many units of the old sequence from `start` on, or, where that
is -1, so many of the new units that come next.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from feature_store.errors import DataError

NEW = -1
_PIECE = 1 << 23  # bytes hashed and written at a time


def runs_of(source: np.ndarray) -> np.ndarray:
    """Runs [R, 2] of units [n] that stand at places `source` of the old sequence, or are NEW."""
    if not len(source):
        return np.zeros((0, 2), np.int64)
    step = np.where(source == NEW, NEW, source - np.arange(len(source)))
    # a new unit ends whatever run was before it, and the other way round
    edge = (step[1:] != step[:-1]) | ((source[1:] == NEW) != (source[:-1] == NEW))
    starts = np.concatenate([[0], np.flatnonzero(edge) + 1])
    counts = np.diff([*starts.tolist(), len(source)])
    return np.stack([source[starts], counts], axis=1).astype(np.int64)


def merged(runs: np.ndarray) -> np.ndarray:
    """The same runs, neighbours that go on from each other as one."""
    if len(runs) < 2:
        return runs
    start, count = runs.T
    fresh = start == NEW
    goes_on = np.where(fresh[:-1], fresh[1:], start[:-1] + count[:-1] == start[1:])
    goes_on &= fresh[:-1] == fresh[1:]
    firsts = np.concatenate([[0], np.flatnonzero(~goes_on) + 1])
    return np.stack([start[firsts], np.add.reduceat(count, firsts)], axis=1)


def check_runs(runs: np.ndarray, old: int, new: int, whole: int, name: str) -> None:
    """Raises DataError for runs that do not make `whole` units of `old` and all `new` ones."""
    shaped = runs.ndim == 2 and runs.shape[1] == 2 and runs.dtype == np.int64
    if shaped and (runs[:, 1] > 0).all() and (runs >= NEW).all() and (runs <= whole + old).all():
        fresh = runs[:, 0] == NEW
        within = (runs[~fresh].sum(1) <= old).all()
        made, taken = sum(runs[:, 1].tolist()), sum(runs[fresh, 1].tolist())
        if within and made == whole and taken == new:
            return
    raise DataError(f"{name}: the delta's runs do not fit together: it was altered")


def places(runs: np.ndarray, old: int) -> np.ndarray:
    """Of every unit [n] its place in the old sequence, followed by the new units."""
    start, count = runs.T
    fresh = start == NEW
    before = np.cumsum(np.where(fresh, count, 0)) - np.where(fresh, count, 0)
    first = np.where(fresh, old + before, start)
    ends = np.cumsum(count)
    within = np.arange(int(count.sum())) - np.repeat(ends - count, count)
    return np.repeat(first, count) + within


def write_runs(old: Path | None, runs: np.ndarray, new: bytes, target: Path) -> str:
    """Put a file together from runs of bytes; returns its SHA-256."""
    whole = hashlib.sha256()
    with mapped(old) as before, open(target, "xb", buffering=1 << 20) as file:
        for piece in _pieces(runs, before, memoryview(new)):
            whole.update(piece)
            file.write(piece)
            piece.release()
    return whole.hexdigest()


def _pieces(runs: np.ndarray, old: memoryview, new: memoryview) -> Iterator[memoryview]:
    taken = 0
    for start, count in runs.tolist():
        source, at = (new, taken) if start == NEW else (old, start)
        taken += count if start == NEW else 0
        for first in range(at, at + count, _PIECE):
            yield source[first : min(first + _PIECE, at + count)]


class mapped:
    """The bytes of a file, read as they are asked for; of none, or an empty one, nothing."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def __enter__(self) -> memoryview:
        self._map: mmap.mmap | None = None
        if self._path is not None and self._path.stat().st_size:
            with open(self._path, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._view = memoryview(self._map if self._map is not None else b"")
        return self._view

    def __exit__(self, *_: object) -> None:
        self._view.release()
        if self._map is not None:
            self._map.close()
