"""Simplex: models learn towards the corners of one regular simplex, which never moves.

Source: Biondi et al., "Stationary representations: optimally approximating compatibility and
implications for improved model replacements", CVPR 2024.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.compatible.contract import LearntMatrix, Losses, OldItems
from recsys.compatible.options import SimplexConfig
from recsys.compatible.procrustes import nearest_rotation

_ROUNDS = 10  # of k-means
_ROWS = 1024  # items of a step that are held against each other


class Simplex(LearntMatrix):
    """Items are no classes: their clusters in the old space are, one for each of the d_old + 1
    corners that this space has room for, turned as the clusters lie. A matrix brings the new
    vectors there; to the model's own loss come `(1 - share)` times the contrast with the items' old
    vectors, `share` times the cross-entropy of their corners, together times `weight`.
    """

    needs = "training of its own, vectors of items that both models know"
    corners: Tensor
    corner: Tensor

    def __init__(self, config: SimplexConfig, old: OldItems, width: int, seed: int) -> None:
        super().__init__(old, width)
        self.config = config
        corners, corner = _corners_of(old, seed)
        self.register_buffer("corners", corners, persistent=False)
        self.register_buffer("corner", corner, persistent=False)

    @classmethod
    def make(cls, config: SimplexConfig, old: OldItems, width: int, seed: int = 0) -> Self:
        """A bridge that has learned nothing."""
        return cls(config, old, width, seed)

    def losses(
        self,
        own: Losses,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        drawn: Tensor,
    ) -> Tensor:
        """The model's own loss and the two of the items."""
        rows, vectors = torch.cat([targets, drawn]), torch.cat([positives, negatives])
        known = self.known[rows].nonzero().squeeze(1)
        # as many as fit, spread over all of the step
        kept = known[:: -(-len(known) // _ROWS)] if len(known) else known
        losses = own(queries, positives, negatives)
        if not len(kept):
            return losses
        mapped = F.normalize(vectors[kept] @ self.matrix, dim=1)
        rows, config = rows[kept], self.config
        anchored = F.cross_entropy(mapped @ self.corners.T * config.sharpness, self.corner[rows])
        old = F.normalize(self.old[rows], dim=1)
        contrast = high_order(old, mapped, self.corner[rows], config.sharpness)
        both = config.share * anchored + (1 - config.share) * contrast
        return losses + config.weight * both


def simplex(corners: int) -> Tensor:
    """Corners [K, K - 1] of a regular simplex: unit vectors whose inner products are -1 / (K - 1).

    `e_1, ..., e_n` and `(1 - sqrt(1 + n)) / n * 1`, n = K - 1, without their mean, of unit length.
    """
    n = corners - 1
    last = torch.full((1, n), (1 - (1 + n) ** 0.5) / n, dtype=torch.float64)
    points = torch.cat([torch.eye(n, dtype=torch.float64), last])
    return F.normalize(points - points.mean(0), dim=1).float()


def high_order(old: Tensor, new: Tensor, classes: Tensor, sharpness: float) -> Tensor:
    """`mean_i( -mu <old_i, new_i> + log sum_j exp(mu <old_i, new_j>) )` over j of another class
    than i, of unit vectors [n, d]; whoever has no other class beside it is left out."""
    scores = sharpness * old @ new.T
    own = scores.diagonal()
    others = scores.masked_fill(classes.unsqueeze(1) == classes, float("-inf"))
    kept = others.amax(1) > float("-inf")
    if not kept.any():
        return scores.new_zeros(())
    return (torch.logsumexp(others[kept], dim=1) - own[kept]).mean()


def _corners_of(old: OldItems, seed: int) -> tuple[Tensor, Tensor]:
    """Corners [d_old + 1, d_old] as the old items' clusters lie, and the corner [N] of each item:
    of those that the old index lacks the first."""
    items = F.normalize(old.vectors[old.known], dim=1)
    count = items.shape[1] + 1
    drawn = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))
    centres = items[drawn[torch.arange(count) % len(drawn)]]
    for _ in range(_ROUNDS):
        cluster = (items @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, cluster, items)
        centres = torch.where(sums.norm(dim=1, keepdim=True) > 0, F.normalize(sums, dim=1), centres)
    points = simplex(count)
    corners = points @ nearest_rotation(points, centres)
    corner = torch.zeros(len(old.vectors), dtype=torch.int64)
    corner[old.known] = (items @ centres.T).argmax(1)
    return corners, corner
