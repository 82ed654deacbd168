"""Scores of many items for many requests, some pairs at a time. B requests, M items."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

PAIRS = 1 << 13  # of a request and an item: each may look at a whole history

Begin = Callable[[dict[str, Tensor]], Callable[[Tensor], Tensor]]
"""From the inputs of some requests, what gives the scores [b, m] of items [b, m]."""


def score_by_pairs(
    inputs: Mapping[str, Tensor], items: Tensor, begin: Begin, pairs: int = PAIRS
) -> Tensor:
    """Scores [B, M] of items [B, M] for requests of `inputs` [B, ...], at most about `pairs` at a
    time; `begin` is asked once for each request."""
    requests = max(1, pairs // max(1, items.shape[1]))
    chunks = []
    for first in range(0, len(items), requests):
        some = slice(first, first + requests)
        score = begin({name: of[some] for name, of in inputs.items()})
        chunks.append(torch.cat([score(part) for part in items[some].split(pairs, dim=1)], dim=1))
    return torch.cat(chunks) if chunks else items.new_zeros(items.shape, dtype=torch.float32)
