"""Ways to merge what several interests find; by quota every interest fills its own share.

B users, K interests, N items, L entries of a shortlist.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from recsys.lists.top_k import stable_top_k

MergeName = Literal["score", "quota", "rounds"]
_UNIT = 1 << 12  # of an entry: shares are rounded to it, so that equal remainders tie


def quotas_of(weights: Tensor, k: int) -> Tensor:
    """How many of k entries [B, K] each interest fills, in proportion to `weights` [B, K].

    By the largest remainder (Hamilton's method); among equal remainders the first interest wins.
    A row sums to k, or to 0 where no weight is positive.
    """
    weights = weights.double().clamp(min=0)
    total = weights.sum(1, keepdim=True)
    shares = (weights / total.where(total > 0, 1.0) * k * _UNIT).round().long()
    quotas, remainders = shares // _UNIT, (shares % _UNIT).masked_fill(weights <= 0, -1)
    left = torch.where(total > 0, k, 0) - quotas.sum(1, keepdim=True)
    order = remainders.argsort(dim=1, descending=True, stable=True)
    return quotas + (order.argsort(dim=1) < left)


def match_to_quotas(scores: Tensor, items: Tensor, quotas: Tensor) -> Tensor:
    """Which entries of the interests' shortlists [B, K, L] are taken.

    Every interest takes the best of its list up to its quota. An item that several want goes to
    the one with which it scores best, the first of them among equals; those that lost it go on
    down their lists. That is the one stable matching (Gale & Shapley, 1962), and what going
    through all pairs from the best score down, taking what is free, would give as well.

    Args:
        scores: each list's scores [B, K, L], descending; -inf is nothing to take.
        items: their items [B, K, L]; ties within a list are broken by the lower one.
        quotas: [B, K].
    """
    length = scores.shape[2]
    flat, names = scores.flatten(1), items.flatten(1)
    # one behind the other: what is wanted of an item, the best score first
    order = flat.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, names.gather(1, order).argsort(dim=1, stable=True))
    names = names.gather(1, order)
    begins = torch.ones_like(names, dtype=torch.bool)
    begins[:, 1:] = names[:, 1:] != names[:, :-1]
    columns = torch.arange(names.shape[1], device=names.device).expand_as(names)
    start = torch.where(begins, columns, 0).cummax(1).values
    free = scores > float("-inf")
    while True:
        wanted = free & (free.cumsum(2) <= quotas.unsqueeze(2))
        asked = wanted.flatten(1).gather(1, order)
        before = asked.cumsum(1) - asked.long()
        lost = asked & (before > before.gather(1, start))
        if not lost.any():
            return wanted
        refused = torch.zeros_like(lost).scatter(1, order, lost)
        free = free & ~refused.unflatten(1, (-1, length))


class Merge(ABC):
    """A way to make one list of what several interests find.

    `prefix` says whether a list is the beginning of every longer one, `by_weight` whether the
    weights of interests decide how much of a list each of them fills, `by_lists` whether the k best
    of every interest are all that it looks at.
    """

    name: ClassVar[MergeName]
    prefix: ClassVar[bool] = True
    by_weight: ClassVar[bool] = False
    by_lists: ClassVar[bool] = True

    @abstractmethod
    def top_k(self, scores: Tensor, weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(scores [B, k], columns [B, k]) of the items that interests' `scores` [B, K, N], with
        `weights` [B, K], put on the list, best first. -inf is no item."""


class ByScore(Merge):
    """The k best of all, an item with its best score."""

    name = "score"

    def top_k(self, scores: Tensor, weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """In the order of `stable_top_k`."""
        return stable_top_k(_best(scores), k)


class ByQuota(Merge):
    """From each interest its best, in proportion to the weights, an item with its best score."""

    name = "quota"
    prefix = False
    by_weight = True
    by_lists = False  # an item scores as its best interest, which may not list it

    def top_k(self, scores: Tensor, weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """In the order of `stable_top_k`."""
        best = _best(scores)
        if scores.shape[1] > 1:
            values, columns = stable_top_k(scores.flatten(0, 1), k)
            lists = values.unflatten(0, scores.shape[:2]), columns.unflatten(0, scores.shape[:2])
            taken = match_to_quotas(*lists, quotas_of(weights, k)).flatten(1)
            users, entries = taken.nonzero(as_tuple=True)
            kept = torch.zeros_like(best, dtype=torch.bool)
            kept[users, lists[1].flatten(1)[users, entries]] = True
            best = best.masked_fill(~kept, float("-inf"))
        return stable_top_k(best, k)


class InRounds(Merge):
    """Each round takes the best items that earlier ones left, as many as its weight says, the same
    for all users; the last one fills the list."""

    name = "rounds"

    def top_k(self, scores: Tensor, weights: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Round after round, an item with the score of the round that took it."""
        k, left, lists = min(k, scores.shape[2]), scores.clone(), []
        if not len(weights):  # nobody says how long a round is
            return stable_top_k(scores[:, 0], k)
        earlier = weights[0, :-1].long().tolist()
        for number, size in enumerate([*earlier, k]):
            values, columns = stable_top_k(left[:, number], min(size, k))
            lists.append((values, columns))
            k -= columns.shape[1]
            if not k:
                break
            left.scatter_(2, columns.unsqueeze(1).expand(-1, left.shape[1], -1), float("-inf"))
        values, columns = (torch.cat(rounds, dim=1) for rounds in zip(*lists, strict=True))
        return values, columns


BY_SCORE, BY_QUOTA, IN_ROUNDS = ByScore(), ByQuota(), InRounds()
MERGES: Mapping[MergeName, Merge] = {merge.name: merge for merge in (BY_SCORE, BY_QUOTA, IN_ROUNDS)}


def _best(scores: Tensor) -> Tensor:
    """Each item's best score [B, N]."""
    return scores.squeeze(1) if scores.shape[1] == 1 else scores.amax(1)
