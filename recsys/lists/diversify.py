"""Controllable diversity: a list that trades scores for different categories.

B users, M candidates, N items, C categories.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CELLS = 1 << 26  # of candidates' categories held at a time


def diversify(
    scores: Tensor, items: Tensor, categories: Tensor, weight: float, k: int
) -> tuple[Tensor, Tensor]:
    """(scores [B, k], items [B, k]) of a list S that makes `sum_i f(i) + weight * sum_{i < j}
    g(i, j)` over S large, f the score and g 1 where the categories of i and j differ.

    Greedy, as in Cen et al., "Controllable multi-interest framework", KDD 2020, algorithm 2: each
    position goes to the candidate that adds most, the first of them among equals. It adds `f(i) +
    weight * (number chosen - number chosen that are like i)`, where the number chosen is the same
    for all. The scores of the list are f, and need not descend.

    Args:
        scores: [B, M].
        items: [B, M], rows of `categories`; -1 for no candidate.
        categories: of all items: ids [N], 0 for none; or multi-hot [N, C]. Items without a common
            category differ.
        weight: lambda; with 0 the list is the first k candidates, where scores descend.
        k: cut to M.
    """
    cells = scores.shape[1] * (categories.shape[1] if categories.dim() == 2 else 1)
    size = max(1, _CELLS // max(1, cells))
    lists = [
        _diversify(*users, categories, weight, min(k, scores.shape[1]))
        for users in zip(scores.split(size), items.split(size), strict=True)
    ]
    values, chosen = (torch.cat(chunks) for chunks in zip(*lists, strict=True))
    return values, chosen


def _diversify(
    scores: Tensor, items: Tensor, categories: Tensor, weight: float, k: int
) -> tuple[Tensor, Tensor]:
    of_items = categories[items.clamp(min=0)]
    free = items >= 0
    alike = torch.zeros_like(scores)  # how many chosen items share a category with each candidate
    values, chosen = scores.new_empty(len(scores), k), items.new_empty(len(items), k)
    for position in range(k):
        gain = (scores - weight * alike).masked_fill(~free, float("-inf"))
        pick = gain.argmax(1, keepdim=True)
        left = free.gather(1, pick)
        values[:, position] = scores.gather(1, pick).masked_fill(~left, float("-inf")).squeeze(1)
        chosen[:, position] = items.gather(1, pick).masked_fill(~left, -1).squeeze(1)
        free = free.scatter(1, pick, False)
        alike = alike + _shared(of_items, pick)
    return values, chosen


def _shared(categories: Tensor, pick: Tensor) -> Tensor:
    """[B, M]: whether each candidate, of `categories` [B, M] or [B, M, C], shares one with the
    `pick` [B, 1]."""
    if categories.dim() == 2:
        picked = categories.gather(1, pick)
        return (categories == picked) & (picked != 0)
    picked = categories.gather(1, pick.unsqueeze(2).expand(-1, 1, categories.shape[2]))
    return (categories.bool() & picked.bool()).any(2)
