"""An index on its way: some items are re-embedded, the others still lie as they did.

N items, B queries, D_i numbers of an item in the old index, d_new in the new space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Calibration:
    """What makes scores of old items comparable with those of new ones: `scale s + shift`."""

    scale: float = 1.0
    shift: float = 0.0

    @classmethod
    def of(cls, before: Tensor, after: Tensor) -> Calibration:
        """By the scores [q, n] that the same items have in both forms, for some queries: afterwards
        both have one mean and one standard deviation."""
        scale = float(after.std() / before.std().clamp(min=1e-12))
        return cls(scale, float(after.mean() - scale * before.mean()))

    def __call__(self, scores: Tensor) -> Tensor:
        """Scores of old items as they compare with those of new ones."""
        return self.scale * scores + self.shift


def mixed_items(stored: Tensor, new: Tensor, renewed: Tensor, calibration: Calibration) -> Tensor:
    """Vectors [N, D_i + d_new + 1] of one index: of items that are `renewed` [N] the new ones
    [N, d_new], of the others what is `stored` [N, D_i], each in numbers of its own.

    A query of `mixed_queries` has with each of them the inner product that it has in its space, so
    that any index over inner products holds both halves.
    """
    chosen = renewed.unsqueeze(1)
    shift = torch.full((len(stored), 1), calibration.shift)
    return torch.cat(
        [
            torch.where(chosen, 0.0, calibration.scale * stored),
            torch.where(chosen, new, 0.0),
            torch.where(chosen, 0.0, shift),
        ],
        dim=1,
    )


def mixed_queries(asked: Tensor, queries: Tensor) -> Tensor:
    """Queries [..., D_i + d_new + 1] of such an index, of what is `asked` of the old one [..., D_i]
    and of the new model's own [..., d_new]."""
    return F.pad(torch.cat([asked, queries], dim=-1), (0, 1), value=1.0)


def renewed_first(count: int, share: float, seed: int = 0) -> Tensor:
    """Which [N] of `count` items are re-embedded when `share` of them is: in an order that is
    drawn once, so that whoever is stays so."""
    order = np.random.default_rng(seed).permutation(count)
    renewed = torch.zeros(count, dtype=torch.bool)
    renewed[torch.from_numpy(order[: round(share * count)])] = True
    return renewed
