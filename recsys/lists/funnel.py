"""How lists are narrowed down: generators find, a coarse and a fine ranker keep, and what is left
after each stage.

The flow alone, the same for models of the training stack and for exported programs. B requests, M
candidates, n items of a stage. Items are whole numbers from 0; -1 is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from recsys.lists.diversify import diversify
from recsys.lists.stage_names import CANDIDATES, COARSE, DIVERSITY, FINE, LIST
from recsys.lists.top_k import stable_top_k

_RANKS = 60.0  # as the source of `fuse` has it
_HEAD = 5.0  # places at the head of the candidates that count nearly alike

Find = Callable[[], tuple[Tensor, Tensor]]
"""Items [B, n] of a generator, best first, and their scores."""
Score = Callable[[Tensor], Tensor]
"""Logits [B, M] of items [B, M]; those of -1 are not looked at."""


class Stage(NamedTuple):
    """What a stage leaves of every request: items [B, n], best first, and its scores [B, n].

    `shown`: people see the beginning of it, so that it is judged at a cut-off; else all of it goes
    on to the next stage.
    """

    name: str
    items: Tensor
    scores: Tensor
    shown: bool = False


class Diversity(NamedTuple):
    """Categories of all items, as `recsys.lists.diversify` reads them, and what it is worth when
    two items differ in them."""

    categories: Tensor
    weight: float


def funnel(
    generators: Mapping[str, Find],
    k: int,
    *,
    coarse: Score | None = None,
    keep: int | None = None,
    fine: Score | None = None,
    place_weight: float = 0.0,
    worth: Tensor | None = None,
    diversity: Diversity | None = None,
) -> Iterator[Stage]:
    """The stages one after the other, each as soon as it is done; the last holds the list, whose
    first k items are the answer.

    Rankers give probabilities, the sigmoids of their logits. `keep` items with the highest of the
    coarse ranker go on to the fine one, which orders them by probability times `worth` [N], that of
    every item, or by probability alone. Of items that score alike the earlier stage's order stays.

    A ranker sees nothing of what generators know. With a `place_weight` the fine one's odds are
    divided by `(5 + place) ** place_weight`, the place being that among all candidates, from 0 on:
    a product of two experts, after Hinton, "Training products of experts by minimizing contrastive
    divergence", 2002.
    """
    lists = []
    for name, find in generators.items():
        items, scores = find()
        lists.append(items)
        yield Stage(name, items, scores)
    items, scores = fuse(lists)
    yield Stage(CANDIDATES, items, scores)
    candidates = items
    if coarse is not None:
        items, scores = _best(items, coarse(items).double().sigmoid(), keep)
        yield Stage(COARSE, items, scores)
    if fine is not None:
        logits = fine(items).double()
        if place_weight:
            logits = logits - place_weight * (_places(items, candidates) + _HEAD).log()
        values = logits.sigmoid()
        if worth is not None:
            values = values * worth.to(values)[items.clamp(min=0)]
        items, scores = _best(items, values)
        yield Stage(FINE, items, scores, shown=True)
    if diversity is not None:
        scores, items = diversify(scores, items, diversity.categories, diversity.weight, k)
        yield Stage(DIVERSITY, items, scores, shown=True)
    elif fine is None:
        yield Stage(LIST, items, scores, shown=True)


def _places(items: Tensor, candidates: Tensor) -> Tensor:
    """Where items [B, n] stand among the candidates [B, M], from 0 on [B, n], float64; -1, which
    is none, anywhere."""
    if items is candidates:
        return torch.arange(items.shape[1], device=items.device).double().expand_as(items)
    ordered, places = candidates.sort(dim=1, stable=True)
    at = torch.searchsorted(ordered, items.contiguous())
    return places.gather(1, at.clamp(max=max(0, ordered.shape[1] - 1))).double()


def fuse(lists: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(items [B, M], scores [B, M]) of all `lists` [B, n] together, none twice: the best by
    reciprocal ranks, `sum 1 / (60 + rank)` over the lists that hold the item.

    Scores of different generators do not compare, their ranks do. Equal scores are ordered by the
    lower item. Source: Cormack, Clarke & Büttcher, "Reciprocal rank fusion outperforms Condorcet
    and individual rank learning methods", SIGIR 2009.
    """
    items = torch.cat(list(lists), dim=1)
    ranks = torch.cat([torch.arange(1, of.shape[1] + 1, device=of.device) for of in lists])
    shares = (1 / (_RANKS + ranks.double())).expand_as(items).masked_fill(items < 0, 0.0)
    items, order = items.sort(dim=1, stable=True)
    begins = torch.ones_like(items)
    begins[:, 1:] = items[:, 1:] != items[:, :-1]
    places = begins.cumsum(1) - 1  # of each entry among the distinct items of its request
    none = torch.full_like(items, -1)
    scores = torch.zeros_like(shares).scatter_add_(1, places, shares.gather(1, order))
    return _best(none.scatter_(1, places, items), scores)


def _best(items: Tensor, scores: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
    """(items [B, n], scores [B, n]), the `most` best, by default all; equal ones in their order."""
    there = items >= 0
    width = max(1, int(there.sum(1).max())) if len(items) else 1
    width = width if most is None else min(most, width)
    values, columns = stable_top_k(scores.masked_fill(~there, float("-inf")), width)
    return items.gather(1, columns).masked_fill(values == float("-inf"), -1), values
