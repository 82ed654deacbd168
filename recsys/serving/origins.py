"""Where items of an answer come from, as numbers that batches of any size hold.

A positive number is a set of generators, a bit each; 0 is no item; -1 is the fallback.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import torch
from torch import Tensor

OF_FALLBACK = -1
_FALLBACK = "fallback"
_AND = "+"  # no name of a part holds it


def found_by(items: Tensor, lists: Sequence[Tensor]) -> Tensor:
    """Which of the `lists` [B, n] hold each of `items` [B, k], -1 for none: [B, k]."""
    origins = torch.zeros_like(items)
    for bit, listed in enumerate(lists):
        holds = (items.unsqueeze(2) == listed.unsqueeze(1)).any(2)
        origins |= holds.long() << bit
    return origins.masked_fill(items < 0, 0)


def names_of(origins: Tensor, generators: Sequence[str]) -> pa.Array:
    """The names [m] of `origins` [m]: of the generators, joined by +, or `fallback`."""
    distinct, places = origins.unique(return_inverse=True)
    names = pa.array([_name(number, generators) for number in distinct.tolist()], pa.string())
    return names.take(pa.array(places.numpy()))


def _name(number: int, generators: Sequence[str]) -> str:
    if number == OF_FALLBACK:
        return _FALLBACK
    return _AND.join(name for bit, name in enumerate(generators) if number >> bit & 1)
