"""Metrics of ranked lists: each gives a value per user and cut-off.

Legend: B users, K positions of a list, C cut-offs. Every metric takes

    relevant  [B, K] bool: which positions hold a relevant item, the best first; or its `Hits`;
    total     [B] int64: how many relevant items each user has, at least one;
    ks        [C] int64: the cut-offs, ascending,

and returns [B, C] float64. A k past the end of the list is allowed: the list simply ended, and
the positions that it lacks are misses. In the formulas `hits@k` counts the relevant items at the
first k positions, and r runs over the ranks 1..k.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

Metric = Callable[["Tensor | Hits", Tensor, Tensor], Tensor]


def precision(relevant: Tensor | Hits, total: Tensor, ks: Tensor) -> Tensor:
    """Precision@k: `hits@k / k`, also where the list is shorter than k.

    Source: Manning, Raghavan & Schütze, Introduction to Information Retrieval, 2008, chapter 8.
    """
    return Hits.of(relevant, ks).counts / ks


def recall(relevant: Tensor | Hits, total: Tensor, ks: Tensor) -> Tensor:
    """Recall@k: `hits@k / total`. Source: Manning et al., 2008, chapter 8."""
    return Hits.of(relevant, ks).counts / total.unsqueeze(1)


def hit_rate(relevant: Tensor | Hits, total: Tensor, ks: Tensor) -> Tensor:
    """HR@k: 1 if the first k positions hold any relevant item, else 0.

    Source: Deshpande & Karypis, TOIS 2004, whose users have one relevant item each.
    """
    return (Hits.of(relevant, ks).counts > 0).double()


def f1(relevant: Tensor | Hits, total: Tensor, ks: Tensor) -> Tensor:
    """F1@k of a user: harmonic mean of its precision and recall, `2 hits@k / (k + total)`.

    Source: van Rijsbergen, Information Retrieval, 1979, chapter 7. Its mean over users is not
    the F1 of mean precision and mean recall: see `f1_of_means`.
    """
    return 2 * Hits.of(relevant, ks).counts / (ks + total.unsqueeze(1))


def ndcg(relevant: Tensor | Hits, total: Tensor, ks: Tensor) -> Tensor:
    """NDCG@k with binary gains: `sum_r rel_r / log2(r + 1)`, over the same sum of the ideal list.

    The ideal list holds min(total, k) relevant items first, however many the list has.
    Source: Järvelin & Kekäläinen, TOIS 2002.
    """
    hits = Hits.of(relevant, ks)
    dcg = hits.sums(1 / torch.log2(hits.rank + 1))
    ranks = torch.arange(1, int(ks[-1]) + 1, dtype=torch.float64, device=ks.device)
    ideal = (1 / torch.log2(ranks + 1)).cumsum(0)
    # sums that are added up in another order may differ in their last digit
    return (dcg / ideal[torch.minimum(total.unsqueeze(1), ks) - 1]).clamp(max=1)


def mrr(relevant: Tensor | Hits, total: Tensor, ks: Tensor) -> Tensor:
    """MRR@k: 1 / rank of the first relevant item at the first k positions, else 0.

    Source: Voorhees, The TREC-8 Question Answering Track Report, 1999.
    """
    hits = Hits.of(relevant, ks)
    return hits.sums((hits.ordinals == 1) / hits.rank)


def mean_average_precision(relevant: Tensor | Hits, total: Tensor, ks: Tensor) -> Tensor:
    """MAP@k: `sum_r rel_r precision@r / min(total, k)`; its mean over users is the MAP.

    Source: Manning et al., 2008, chapter 8, cut off at k. The normaliser is the number of hits
    that a perfect list of length k has, so that a perfect list scores 1 at every k. Libraries
    differ: ranx and, unless told to divide by k, RecTools divide by `total`, where a perfect list
    scores k / total.
    """
    hits = Hits.of(relevant, ks)
    return hits.sums(hits.ordinals / hits.rank) / torch.minimum(total.unsqueeze(1), ks)


METRICS: dict[str, Metric] = {
    "Precision": precision,
    "Recall": recall,
    "HR": hit_rate,
    "F1": f1,
    "NDCG": ndcg,
    "MRR": mrr,
    "MAP": mean_average_precision,
}


def f1_of_means(
    precision: float | np.ndarray, recall: float | np.ndarray
) -> np.float64 | np.ndarray:
    """F1OfMeans@k: `2 P R / (P + R)` of precision P and recall R already averaged over users.

    Any equal shapes; 0 where both are 0. Source: as `f1`, macro-averaged before combining.
    """
    both = np.add(precision, recall)
    return 2 * np.multiply(precision, recall) / np.where(both == 0, 1.0, both)


def sums_at(values: Tensor, ks: Tensor) -> Tensor:
    """Sums of `values` [B, K] at the first k positions, for each k of `ks` [C]: [B, C] float64."""
    return values.cumsum(1, dtype=torch.float64)[:, ks.clamp(max=values.shape[1]) - 1]


class Hits:
    """The relevant positions of all lists: H pairs of user and rank, in order of both.

    Hits are few among the positions, so everything below costs one pass over the bytes of
    `relevant`, and the rest is in proportion to H.

    Attributes:
        user: [H] int64, the row of the list.
        position: [H] int64 in the list, from 0.
        rank: [H] float64, from 1.
    """

    @classmethod
    def of(cls, relevant: Tensor | Hits, ks: Tensor) -> Hits:
        """Found once, they serve every metric of the same lists and cut-offs."""
        if isinstance(relevant, Hits):
            return relevant
        user, position = relevant.nonzero(as_tuple=True)
        return cls(len(relevant), user, position, ks)

    def __init__(self, lists: int, user: Tensor, position: Tensor, ks: Tensor) -> None:
        self.user, self.position, self.rank = user, position, (position + 1).double()
        # the first cut-off that takes the hit in; hits past the last one get a column to drop
        self._shape = (lists, len(ks) + 1)
        self._cell = user * self._shape[1] + torch.searchsorted(ks, position + 1)

    def within(self, members: Tensor, ks: Tensor) -> Hits:
        """Of each of G slices of items its hits alone, as if all lists [B] came again for it: those
        of G * B lists, the first slice's first. `members` [H, G]: in which slices the hits are."""
        part, hit = members.T.nonzero(as_tuple=True)
        lists = self._shape[0]
        return Hits(lists * members.shape[1], part * lists + self.user[hit], self.position[hit], ks)

    @cached_property
    def ordinals(self) -> Tensor:
        """How many hits its user has up to and with this one: [H], from 1."""
        counts = torch.bincount(self.user, minlength=self._shape[0])
        before = counts.cumsum(0) - counts
        every = torch.arange(1, len(self.user) + 1, device=self.user.device)
        return every - before[self.user]

    def sums(self, values: Tensor) -> Tensor:
        """Sums of `values` [H] over a user's hits up to each cut-off: [B, C]."""
        cells = self.rank.new_zeros(self._shape)
        cells.view(-1).index_add_(0, self._cell, values)
        return cells[:, :-1].cumsum(1)

    @cached_property
    def counts(self) -> Tensor:
        """hits@k: [B, C] float64."""
        return self.sums(torch.ones_like(self.rank))
