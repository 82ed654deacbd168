"""How a user's interests lie to each other, and to clusters that are known.

B users, K interests, D width, T events.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F


def redundancy(vectors: Tensor, present: Tensor) -> Tensor:
    """Mean cosine over all pairs of a user's interests [B]; NaN where there is no pair.

    1 means that all are the same. With the sum s of the n unit vectors it is
    `(|s|^2 - n) / (n (n - 1))`.

    Args:
        vectors: [B, K, D].
        present: which of them the user has [B, K].
    """
    units = F.normalize(vectors.double(), dim=2) * present.unsqueeze(2)
    n = present.sum(1)
    pairs = units.sum(1).square().sum(1) - n
    return torch.where(n >= 2, pairs / (n * (n - 1)), torch.nan)


def matched_purity(interests: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Share of a user's events that lie in the interest matched to their cluster [B].

    Interests and clusters are matched one to one so that the share is as large as can be
    (Kuhn, 1955): a single interest gets the share of the largest cluster, and so do interests
    that divide no cluster from another. NaN for users without events.

    Args:
        interests: interest of each event [B, T], from 0.
        clusters: cluster of each event [B, T]; -1 is no event.
    """
    shares = np.full(len(interests), np.nan)
    for user, (interest, cluster) in enumerate(zip(interests, clusters, strict=True)):
        kept = cluster >= 0
        if kept.any():
            _, rows = np.unique(interest[kept], return_inverse=True)
            _, columns = np.unique(cluster[kept], return_inverse=True)
            counts = np.zeros((rows.max() + 1, columns.max() + 1))
            np.add.at(counts, (rows, columns), 1)
            shares[user] = counts[linear_sum_assignment(-counts)].sum() / kept.sum()
    return shares
