"""Where items of an answer come from, as numbers that batches of any size hold.

A positive number is a set of generators, a bit each; 0 is no item; -1 is the fallback for
everybody, and what is below that of a segment of users.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import torch
from torch import Tensor

from recsys.lists.pairs import contains

_FALLBACK = "fallback"
_AND, _OF = "+", ":"  # no name of a part holds them


def of_segments(segment: int) -> int:
    """The origin of the fallback's list for a segment, from 1; 0 is everybody."""
    return -1 - segment


def found_by(items: Tensor, lists: Sequence[Tensor]) -> Tensor:
    """Which of the `lists` [B, n] hold each of `items` [B, k], -1 for none: [B, k]."""
    origins = torch.zeros_like(items)
    for bit, listed in enumerate(lists):
        origins |= contains(listed, items).long() << bit
    return origins.masked_fill(items < 0, 0)


def names_of(
    origins: Tensor, generators: Sequence[str], segments: pa.Array | None = None
) -> pa.Array:
    """The names [m] of `origins` [m]: of the generators, joined by +, or `fallback`, with the name
    of a segment behind a colon where `segments` are given."""
    if len(origins) and bool((origins == origins[0]).all()):  # as of a generator alone
        name = _name(int(origins[0]), generators, segments)
        return pa.repeat(pa.scalar(name, pa.string()), len(origins))
    distinct, places = origins.unique(return_inverse=True)
    names = [_name(number, generators, segments) for number in distinct.tolist()]
    return pa.array(names, pa.string()).take(pa.array(places.numpy()))


def _name(number: int, generators: Sequence[str], segments: pa.Array | None) -> str:
    if number >= 0:
        return _AND.join(name for bit, name in enumerate(generators) if number >> bit & 1)
    if number == -1 or segments is None:
        return _FALLBACK
    return f"{_FALLBACK}{_OF}{segments[-2 - number]}"
