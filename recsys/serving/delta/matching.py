"""Which stretches of a file stand in an older one, wherever they stand there.

First what stands in the same place, then, of what is left, windows of a block's length at every
position, found by a polynomial hash of which prefix sums give all windows at once: the idea of
rsync (Tridgell and Mackerras 1996), whose rolling hash is rolled over an array.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from recsys.serving.delta.runs import NEW, merged

BLOCK = 64  # bytes
_FINE = 1 << 25  # bytes up to which windows begin at every byte, and beyond at every fourth
_STRETCH = 1 << 22  # bytes of windows that are hashed at a time
_FACTOR, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_BITS = 26  # of the filter before the table


def match(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Runs [R, 2] of bytes by which `new` [m] uint8 is made of `old` [n] uint8."""
    runs = []
    table: _Blocks | None = None
    for first, last, alike in _in_place(old, new):
        if alike:
            runs.append((first, last - first))
            continue
        if last - first < BLOCK or len(old) < BLOCK:
            runs.append((NEW, last - first))
            continue
        table = table or _Blocks.of(old, 1 if max(len(old), len(new)) <= _FINE else 4)
        for start in range(first, last, _STRETCH):
            runs += table.match(new, start, min(start + _STRETCH, last))
    return merged(np.array(runs, np.int64).reshape(-1, 2))


def _in_place(old: np.ndarray, new: np.ndarray) -> list[tuple[int, int, bool]]:
    """Stretches of `new`, and whether the same bytes stand in the same place of `old`."""
    blocks = min(len(old), len(new)) // BLOCK
    alike = np.zeros(blocks, bool)
    for start in range(0, blocks, _STRETCH):
        part = slice(start * BLOCK, min(start + _STRETCH, blocks) * BLOCK)
        same = (old[part] == new[part]).reshape(-1, BLOCK)
        alike[start : start + _STRETCH] = same.all(1)
    edges = np.flatnonzero(alike[1:] != alike[:-1]) + 1
    bounds = [0, *edges.tolist(), blocks]
    stretches = [
        (first * BLOCK, last * BLOCK, bool(alike[first]))
        for first, last in pairwise(bounds)
        if last > first
    ]
    if blocks * BLOCK < len(new):
        stretches.append((blocks * BLOCK, len(new), False))
    return stretches


class _Blocks(NamedTuple):
    """The blocks of a file by their hashes, in ascending order, and what is surely none."""

    old: np.ndarray
    step: int  # bytes between windows
    hashes: np.ndarray
    places: np.ndarray
    maybe: np.ndarray

    @classmethod
    def of(cls, old: np.ndarray, step: int) -> _Blocks:
        """The blocks of the bytes of a file."""
        whole = old[: len(old) // BLOCK * BLOCK]
        hashes = np.concatenate(
            [
                _windows(whole[start : start + _STRETCH], step)[:: BLOCK // step]
                for start in range(0, len(whole), _STRETCH)
            ]
        )
        order = np.argsort(hashes, kind="stable")
        maybe = np.zeros(1 << _BITS, bool)
        maybe[hashes >> np.uint64(64 - _BITS)] = True
        return cls(old, step, hashes[order], order * BLOCK, maybe)

    def match(self, new: np.ndarray, first: int, last: int) -> list[tuple[int, int]]:
        """Runs that make the bytes from `first` to `last`."""
        runs, done = [], first
        for at, place in self._hits(new, first, last):
            if at + BLOCK <= done:
                continue
            at, place = max(at, done), place + max(0, done - at)
            back = _alike(self.old[:place][::-1], new[done:at][::-1])
            ahead = _alike(self.old[place:], new[at:last])
            if at - back > done:
                runs.append((NEW, at - back - done))
            runs.append((place - back, back + ahead))
            done = at + ahead
        if done < last:
            runs.append((NEW, last - done))
        return runs

    def _hits(self, new: np.ndarray, first: int, last: int) -> list[tuple[int, int]]:
        """Windows that stand in the old file, where they begin there; of those that go on from each
        other the first."""
        hashes = _windows(new[first:last], self.step)
        chosen = np.flatnonzero(self.maybe[hashes >> np.uint64(64 - _BITS)])
        nearest = np.searchsorted(self.hashes, hashes[chosen]).clip(max=len(self.hashes) - 1)
        there = self.hashes[nearest] == hashes[chosen]
        at, place = first + chosen[there] * self.step, self.places[nearest[there]]
        spread = np.arange(BLOCK)
        same = (self.old[place[:, None] + spread] == new[at[:, None] + spread]).all(1)
        at, place = at[same], place[same]
        fresh = np.ones(len(at), bool)
        fresh[1:] = (np.diff(at) > BLOCK) | (np.diff(place) != np.diff(at))
        return list(zip(at[fresh].tolist(), place[fresh].tolist(), strict=True))


def _windows(data: np.ndarray, step: int) -> np.ndarray:
    """A 64-bit hash of every window of a block's length: [(n - BLOCK) / step + 1]."""
    words = data[: len(data) // step * step]
    words = words.view(np.uint32) if step == 4 else words
    length = BLOCK // step
    if len(words) < length:
        return np.zeros(0, np.uint64)
    powers = np.full(len(words) + 1, _FACTOR)
    powers[0] = 1
    powers = np.cumprod(powers)
    sums = np.zeros(len(words) + 1, np.uint64)
    np.cumsum((words.astype(np.uint64) + np.uint64(1)) * powers[:-1], out=sums[1:])
    windows = sums[length:] - sums[:-length]
    inverse = np.full(len(windows), np.uint64(pow(int(_FACTOR), -1, 1 << 64)))
    inverse[0] = 1
    mixed = windows * np.cumprod(inverse)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIX
    return mixed ^ (mixed >> np.uint64(29))


def _alike(old: np.ndarray, new: np.ndarray) -> int:
    """Bytes that both begin with."""
    most, done, size = min(len(old), len(new)), 0, BLOCK
    while done < most:
        differ = old[done : min(done + size, most)] != new[done : min(done + size, most)]
        if differ.any():
            return done + int(differ.argmax())
        done, size = min(done + size, most), size * 8
    return most
