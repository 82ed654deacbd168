"""Lists that an approximate search left shorter than they could be, made up for by an exact one."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.lists.merging import Merge
from recsys.lists.pairs import Pairs
from recsys.lists.search import search

FEW_ALLOWED = 20  # one item in so many: comparing all of them is cheaper than finding them


def fill_short(
    answer: tuple[Tensor, Tensor],
    items: Tensor,
    queries: Tensor,
    weights: Tensor,
    k: int,
    exclude: Tensor | None,
    merge: Merge,
    allowed: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The answer, (scores [B, k], places [B, k]), that of exact search in the rows that lack items
    although there are some."""
    values, places = answer
    short = (places >= 0).sum(1) < _wanted(len(items), weights, k, exclude, allowed)
    if short.any():
        rows = short.nonzero().squeeze(1)
        hidden = None if exclude is None else exclude[rows]
        values[rows], places[rows] = search(
            queries[rows], weights[rows], items, k, hidden, merge, allowed
        )
    return values, places


def _wanted(
    items: int, weights: Tensor, k: int, exclude: Tensor | None, allowed: Tensor | None
) -> Tensor:
    """How many items there are for each of B users, k at most."""
    left = items if allowed is None else int(allowed.sum())
    wanted = torch.full((len(weights),), left)
    if exclude is not None and left < k + exclude.shape[1]:
        pairs = Pairs.of_padded(exclude, padding=-1)
        if allowed is not None:
            pairs = pairs.where(allowed[pairs.items])
        once = (pairs.users * items + pairs.items).unique() // items
        wanted -= torch.bincount(once, minlength=len(weights))
    return wanted.clamp(max=k).masked_fill((weights <= 0).all(1), 0)
