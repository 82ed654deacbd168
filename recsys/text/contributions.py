"""What each word adds to the inner product of two texts' vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

ORDERS = 8


class Contributions(NamedTuple):
    """`base`, the score without any word, and what each word adds to it [P]: together the score."""

    base: float
    words: Tensor


def contributions(
    vectors_of: Callable[[Tensor], Tensor],
    other: Tensor,
    words: int,
    *,
    orders: int = ORDERS,
    seed: int = 0,
) -> Contributions:
    """Of each of so many words of a text to its score, the inner product with `other` [D].

    `vectors_of` takes masks [M, P] of the words that are kept and gives the text's vectors [M, D].
    Words join in random orders, each followed by its reverse, and what one adds to those before it
    is averaged: Shapley values by sampling (Castro, Gómez & Tejada, "Polynomial calculation of the
    Shapley value based on sampling", 2009). The sum is exact in every order, whatever the model.
    """
    draws = torch.Generator().manual_seed(seed)
    forth = [torch.randperm(words, generator=draws) for _ in range(max(1, orders // 2))]
    joined = torch.stack([order for drawn in forth for order in (drawn, drawn.flip(0))])
    ranks = joined.argsort(1)  # when each word joins
    kept = ranks.unsqueeze(1) < torch.arange(words + 1).view(1, -1, 1)  # [orders, P + 1, P]
    scores = (vectors_of(kept.flatten(0, 1)) @ other).view(len(joined), words + 1).double()
    added = scores.diff(dim=1).gather(1, ranks).mean(0)
    return Contributions(float(scores[0, 0]), added)
