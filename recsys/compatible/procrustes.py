"""Procrustes: the rotation that brings a new model's vectors closest to the old ones."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.compatible.contract import Fitted, Paired, Rotation, wider
from recsys.compatible.options import ProcrustesConfig


class Procrustes(Fitted):
    """Fitted in closed form to paired vectors; the narrower space ends in zeros."""

    needs = "vectors of items that both models know"

    @classmethod
    def fit(cls, config: ProcrustesConfig, paired: Paired, seed: int = 0) -> Rotation:
        """The rotation of the singular value decomposition."""
        old, new = paired.all
        return Rotation(nearest_rotation(new, old), new.shape[1], old.shape[1])


def nearest_rotation(new: Tensor, old: Tensor) -> Tensor:
    """The orthogonal R [D, D] with the least `|new R - old|`, D being the larger width.

    `R = U V^T` of the decomposition `new^T old = U S V^T` (Schönemann, "A generalized solution of
    the orthogonal Procrustes problem", 1966). In float64: the product of two rotations stays one.
    """
    width = max(new.shape[1], old.shape[1])
    product = wider(new.double(), width).T @ wider(old.double(), width)
    left, _, right = torch.linalg.svd(product)
    return (left @ right).to(new.dtype)


def slerp(old: Tensor, new: Tensor, share: float) -> Tensor:
    """Between two unit vectors [..., D] on the sphere, `share` of the way from `old` to `new`:
    `sin((1 - a) t) / sin t * old + sin(a t) / sin t * new`, t the angle between them.

    Asking with a query of both models, the new one turned, finds more than either; it needs both
    user towers in service. Source: Ricci et al., SLERP for backward compatibility, 2026.
    """
    cosine = (old * new).sum(-1, keepdim=True).clamp(-1, 1)
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    mixed = torch.sin((1 - share) * angle) * old + torch.sin(share * angle) * new
    return torch.where(sine > 1e-4, mixed / sine.clamp(min=1e-4), (1 - share) * old + share * new)
