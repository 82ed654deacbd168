"""Controllable diversity: a list that trades scores for different categories.

B users, M candidates, N items, C categories.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CELLS = 1 << 26  # of candidates' categories held at a time


def diversify(
    scores: Tensor, places: Tensor, categories: Tensor, weight: float, k: int
) -> tuple[Tensor, Tensor]:
    """(scores [B, k], places [B, k]) of a list S that makes `sum_i f(i) + weight * sum_{i < j}
    g(i, j)` over S large, f the score and g 1 where the categories of i and j differ.

    Greedy, as in Cen et al., "Controllable multi-interest framework", KDD 2020, algorithm 2: each
    place goes to the candidate that adds most, the first of them among equals. It adds `f(i) +
    weight * (number chosen - number chosen that are like i)`, where the number chosen is the same
    for all. The scores of the list are f, and need not descend.

    Args:
        scores: [B, M].
        places: items [B, M], -1 for no candidate.
        categories: of all items: ids [N], 0 for none; or multi-hot [N, C]. Items without a common
            category differ.
        weight: lambda; with 0 the list is the first k candidates, where scores descend.
        k: cut to M.
    """
    cells = scores.shape[1] * (categories.shape[1] if categories.dim() == 2 else 1)
    size = max(1, _CELLS // max(1, cells))
    parts = [
        _diversify(one, other, categories, weight, min(k, scores.shape[1]))
        for one, other in zip(scores.split(size), places.split(size), strict=True)
    ]
    values, found = (torch.cat(part) for part in zip(*parts, strict=True))
    return values, found


def _diversify(
    scores: Tensor, places: Tensor, categories: Tensor, weight: float, k: int
) -> tuple[Tensor, Tensor]:
    own = categories[places.clamp(min=0)]
    free = places >= 0
    alike = torch.zeros_like(scores)  # how many chosen ones share a category with each candidate
    values, found = scores.new_empty(len(scores), k), places.new_empty(len(places), k)
    for place in range(k):
        gain = (scores - weight * alike).masked_fill(~free, float("-inf"))
        pick = gain.argmax(1, keepdim=True)
        left = free.gather(1, pick)
        values[:, place] = scores.gather(1, pick).masked_fill(~left, float("-inf")).squeeze(1)
        found[:, place] = places.gather(1, pick).masked_fill(~left, -1).squeeze(1)
        free = free.scatter(1, pick, False)
        alike = alike + _shared(own, pick)
    return values, found


def _shared(own: Tensor, pick: Tensor) -> Tensor:
    """Whether each candidate shares a category with the picked one [B, 1]; [B, M]."""
    if own.dim() == 2:
        picked = own.gather(1, pick)
        return (own == picked) & (picked != 0)
    picked = own.gather(1, pick.unsqueeze(2).expand(-1, 1, own.shape[2]))
    return (own.bool() & picked.bool()).any(2)
