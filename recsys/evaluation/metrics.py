"""Metrics of ranked lists: each gives one value per user.

B users, K places; `relevant` [B, K] says which places of the list hold a relevant item, best
first; `total` [B] counts each user's relevant items, at least one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Metric = Callable[[Tensor, Tensor, int], Tensor]


def recall(relevant: Tensor, total: Tensor, k: int) -> Tensor:
    """Recall@k: hits in the top k / relevant items."""
    return relevant[:, :k].sum(1) / total


def hit_rate(relevant: Tensor, total: Tensor, k: int) -> Tensor:
    """HR@k: 1 if the top k hold any relevant item, else 0."""
    return relevant[:, :k].any(1).double()


def ndcg(relevant: Tensor, total: Tensor, k: int) -> Tensor:
    """NDCG@k with binary gains: `sum_r rel_r / log2(r + 1)`, r = 1..k, over its ideal.

    The ideal list holds min(total, k) relevant items first. Source: Järvelin & Kekäläinen, 2002.
    """
    discounts = 1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64, device=total.device))
    ideal = torch.cat([discounts.new_zeros(1), discounts.cumsum(0)])
    gains = relevant[:, :k].double() @ discounts[: relevant[:, :k].shape[1]]
    return gains / ideal[total.clamp(max=k).long()]


def mrr(relevant: Tensor, total: Tensor, k: int) -> Tensor:
    """MRR@k: 1 / rank of the first relevant item in the top k, else 0. Voorhees, TREC-8, 1999."""
    top = relevant[:, :k]
    rank = top.to(torch.int8).argmax(1) + 1
    return top.any(1).double() / rank


METRICS: dict[str, Metric] = {"Recall": recall, "HR": hit_rate, "NDCG": ndcg, "MRR": mrr}


def coverage(recommended: Tensor, candidates: int) -> float:
    """Catalogue coverage: distinct recommended items [any shape, 0 = none] / candidates."""
    distinct = torch.unique(recommended)
    return int((distinct != 0).sum()) / candidates
