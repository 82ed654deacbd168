"""An index on its way: some items are re-embedded, the others still lie as they did.

N items, B queries, D_i numbers of an item in the old index, d_new in the new space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.compatible.contract import Bridge


@dataclass(frozen=True)
class Calibration:
    """What makes scores of old items comparable with those of new ones: `scale s + shift`."""

    scale: float = 1.0
    shift: float = 0.0

    @classmethod
    def of(cls, bridge: Bridge, queries: Tensor, old: Tensor, new: Tensor) -> Calibration:
        """By the scores that the same items [n, d_old] and [n, d_new] have in both forms for some
        queries [q, d_new]: afterwards both have one mean and one standard deviation."""
        before = bridge.asked(queries) @ bridge.stored(old).T
        after = queries @ new.T
        scale = float(after.std() / before.std().clamp(min=1e-12))
        return cls(scale, float(after.mean() - scale * before.mean()))


def mixed_items(
    bridge: Bridge, old: Tensor, new: Tensor, renewed: Tensor, calibration: Calibration
) -> Tensor:
    """Vectors [N, D_i + d_new + 1] of one index: of items that are `renewed` [N] the new ones
    [N, d_new], of the others the old ones [N, d_old], each in numbers of its own.

    A query of `mixed_queries` has with each of them the inner product that it has in its space, so
    that any index over inner products holds both halves.
    """
    stored = bridge.stored(old)
    chosen = renewed.unsqueeze(1)
    return torch.cat(
        [
            torch.where(chosen, 0.0, calibration.scale * stored),
            torch.where(chosen, new, 0.0),
            torch.where(chosen, 0.0, torch.tensor(calibration.shift)),
        ],
        dim=1,
    )


def mixed_queries(bridge: Bridge, queries: Tensor) -> Tensor:
    """New queries [..., d_new] as they ask such an index [..., D_i + d_new + 1]."""
    return F.pad(torch.cat([bridge.asked(queries), queries], dim=-1), (0, 1), value=1.0)


def renewed_first(count: int, share: float, seed: int = 0) -> Tensor:
    """Which [N] of `count` items are re-embedded when `share` of them is: in an order that is
    drawn once, so that whoever is stays so."""
    order = np.random.default_rng(seed).permutation(count)
    renewed = torch.zeros(count, dtype=torch.bool)
    renewed[torch.from_numpy(order[: round(share * count)])] = True
    return renewed
