"""Orthogonal maps that are trained: `B = exp(P)`, P skew-symmetric, and its relaxed successor.

Sources: Ricci et al., "Backward-compatible aligned representations via an orthogonal
transformation layer" (OCA), ECCV workshops 2024, and "lambda-orthogonality regularization for
compatible representation learning", NeurIPS 2025.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.compatible.contract import Bridge, Fitted, LinearBridge, Paired, Rotation
from recsys.compatible.options import OrthogonalConfig
from recsys.compatible.procrustes import nearest_rotation

_BATCH = 1024


class Orthogonal(Fitted):
    """Both models stay as they are. Learned by Adam, from the Procrustes rotation on: `backward`
    weighs `|B(h_new) - h_old|^2`, `contrast` the softmax over the old items of which one is the
    same, and `onward` the map of old vectors into the new space, `|F(h_old) - h_new|^2`."""

    needs = "vectors of items that both models know"

    @classmethod
    def fit(cls, config: OrthogonalConfig, paired: Paired, seed: int = 0) -> Bridge:
        """Train the map: an exact rotation, or with `relaxed` one that may bend by up to
        `slack`."""
        old, new = paired.all
        d_old, d_new = old.shape[1], new.shape[1]
        width = max(d_old, d_new)
        start = nearest_rotation(new, old)
        free = torch.zeros(width, width, requires_grad=True)
        onto = (start[:d_new, :d_old].T.contiguous()).clone().requires_grad_()
        optimizer = torch.optim.Adam([free, onto], lr=config.learning_rate)
        generator = torch.Generator().manual_seed(seed)

        def matrix() -> Tensor:
            return start + free if config.relaxed else start @ rotation_of(free)

        with torch.enable_grad():
            for _ in range(config.steps):
                rows = torch.randint(len(new), (min(_BATCH, len(new)),), generator=generator)
                mapped, wanted, turned = new[rows], old[rows], matrix()
                back = mapped @ turned[:d_new, :d_old]
                loss = config.backward * (back - wanted).square().sum(1).mean()
                if config.contrast:
                    loss = loss + config.contrast * _contrast(back, wanted, config.temperature)
                ahead = wanted @ onto
                loss = loss + config.onward * (ahead - mapped).square().sum(1).mean()
                if config.relaxed:
                    loss = loss + bent(turned, config.slack, config.sharpness)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():  # in float64: the product of two rotations stays one
            start, free = start.double(), free.double()
            turned = matrix().to(new.dtype)
        if config.relaxed:
            return LinearBridge(turned[:d_new, :d_old], onto.detach())
        return Rotation(turned, d_new, d_old)


def rotation_of(free: Tensor) -> Tensor:
    """`exp(P)` of the skew-symmetric P that the upper triangle of `free` [D, D] names: orthogonal,
    whatever stands there."""
    upper = torch.triu(free, diagonal=1)
    return torch.linalg.matrix_exp(upper - upper.T)


def bent(matrix: Tensor, slack: float, sharpness: float) -> Tensor:
    """`sigmoid(alpha (|W W^T - I| - lambda)) * |W W^T - I|`, the Frobenius norm: hardly anything
    as long as W is within `slack` of orthogonal, and the distance itself beyond."""
    distance = torch.linalg.matrix_norm(matrix @ matrix.T - torch.eye(len(matrix)))
    return torch.sigmoid(sharpness * (distance - slack)) * distance


def _contrast(mapped: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding its own old vector among those of the batch."""
    scores = F.normalize(mapped, dim=1) @ F.normalize(wanted, dim=1).T / temperature
    return F.cross_entropy(scores, torch.arange(len(scores)))
