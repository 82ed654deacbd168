"""What accuracy does not see: exposure of the catalogue, novelty, diversity, popularity bias.

Legend: B users, K positions, C cut-offs, N items, D width. `ids` [B, K] are item rows, best
position first; 0 is an empty position. `ks` [C] int64 are ascending cut-offs. Figures of a list are
[B, C] float64, NaN where the list has too little to judge: leave those out of a mean.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.evaluation.metrics import sums_at


def catalogue_coverage(counts: np.ndarray) -> np.ndarray:
    """Coverage@k: candidates recommended to anyone at all / candidates; [..., N] -> [...].

    `counts` says how often each of the N candidates was recommended, over all users.
    Source: Ge, Delgado-Battenfeld & Jannach, RecSys 2010.
    """
    return np.count_nonzero(counts, axis=-1) / np.shape(counts)[-1]


def gini(counts: np.ndarray) -> np.ndarray:
    """Gini@k, inequality of exposure: `sum_i (2 i - N - 1) c_i / ((N - 1) sum_i c_i)`.

    c_1 <= ... <= c_N are the counts of all N candidates in ascending order, those never
    recommended among them: 0 = all recommended equally often, 1 = one item takes every position.
    [..., N] -> [...]; NaN where nothing was recommended or there is only one candidate.
    Source: Shani & Gunawardana, Evaluating Recommendation Systems, 2011.
    """
    ascending = np.sort(counts, axis=-1)
    n = ascending.shape[-1]
    above = (ascending * (2 * np.arange(1, n + 1) - n - 1)).sum(-1)
    with np.errstate(invalid="ignore"):
        return np.divide(above, (n - 1) * ascending.sum(-1))


def self_information(users: Tensor, total: int) -> Tensor:
    """Surprise of meeting an item, in bits: `-log2(users / total)`; [N] -> [N] float64.

    `users` counts, among `total` users, those who had interacted with the item. An item that
    nobody knows counts as known to one user: the largest finite surprise, log2(total).
    Source: Zhou et al., PNAS 2010.
    """
    return -torch.log2(users.double().clamp(min=1) / total)


def novelty(ids: Tensor, information: Tensor, ks: Tensor) -> Tensor:
    """Novelty@k: mean `self_information` [N] of the items at the first k positions, in bits.

    Empty positions do not count; a list without items gives NaN.
    Source: Vargas & Castells, RecSys 2011 (mean self-information of the list).
    """
    filled = ids != 0
    return sums_at(information[ids].where(filled, 0), ks) / sums_at(filled, ks)


def category_units(bags: Tensor) -> Tensor:
    """Multi-hot unit vectors of items: `bags` [N, L] of category rows -> [N, D] float32.

    Bags are padded with 0, and a repeated category counts once; D is the highest category row.
    The cosine of two items is then `|A and B| / sqrt(|A| |B|)` of their sets of categories. An
    item without a category gets zeros. Needs 4 N D bytes.
    """
    rows = F.pad(bags.long(), (0, 1))  # there may be no category at all: L = 0
    hot = torch.zeros(len(rows), int(rows.max()) + 1, device=rows.device)
    return F.normalize(hot.scatter_(1, rows, 1.0)[:, 1:], dim=1)


def diversity(ids: Tensor, units: Tensor, ks: Tensor) -> Tensor:
    """Intra-list diversity@k: mean of `1 - cosine` over all pairs at the first k positions.

    `units` [N, D] are item vectors of length 1, by category or any other; zeros mean that an item
    has none. Such items and empty positions are left out, and fewer than two others give NaN.
    The n unit vectors of a list need no pairs: with their sum s, the mean cosine over pairs is
    `(|s|^2 - n) / (n (n - 1))`, so that the cost is O(k D) a list.
    Source: Smyth & McClave, ICCBR 2001; Ziegler et al., WWW 2005 (intra-list similarity).
    """
    ids = ids[:, : int(ks[-1])].long()
    # bags between one cut-off and the next, so that no [B, K, D] is ever laid out
    starts = F.pad(ks[:-1], (1, 0)).clamp(max=ids.shape[1])
    lists = torch.arange(len(ids), device=ids.device).unsqueeze(1) * ids.shape[1]
    offsets = (lists + starts).flatten()
    bags = F.embedding_bag(ids.flatten(), units, offsets, mode="sum", padding_idx=0)
    sums = bags.view(len(ids), len(ks), units.shape[1]).double().cumsum(1)
    has_vector = torch.linalg.vector_norm(units, dim=1) > 0
    n = sums_at((ids != 0) & has_vector[ids], ks)
    cosine = (sums.square().sum(2) - n) / (n * (n - 1))
    # rounding can push equal items a hair below 0
    return torch.where(n >= 2, (1 - cosine).clamp(min=0), torch.nan)


def popularity_weights(counts: Tensor, beta: float = 0.5) -> Tensor:
    """Weights `popularity^-beta` of items: training events [N] -> [N] float64.

    beta = 0 weighs all alike; beta = 1 takes popularity out in full. An item without events
    counts as having one. Source: Steck, RecSys 2011.
    """
    return counts.double().clamp(min=1) ** -beta


def stratified_recall(relevant: Tensor, weights: Tensor, total: Tensor, ks: Tensor) -> Tensor:
    """StratifiedRecall@k: weight of the targets at the first k positions / weight of all.

    With weights `popularity^-beta` it estimates the recall on what the user likes, rather than on
    what popularity let into the log.
    Source: Steck, Item Popularity and Recommendation Accuracy, RecSys 2011; a plain mean of it
    weighs users alike, a mean weighted by `total` weighs targets alike.

    Args:
        relevant: which positions hold a target [B, K].
        weights: weight of the item at each position [B, K], see `popularity_weights`.
        total: summed weight of all the user's targets [B], positive.
        ks: cut-offs [C].
    """
    return sums_at(relevant * weights, ks) / total.unsqueeze(1)
