"""Dice, the activation that adapts to its inputs' distribution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.distributed import current_group

_EPSILON = 1e-8
_MOMENTUM = 0.01


class Dice(nn.Module):
    """`p(s) s + (1 - p(s)) alpha s` with `p(s) = sigmoid((s - E[s]) / sqrt(Var[s] + 1e-8))`, for
    each of C channels, which has an alpha of its own that is learned, 0 at first.

    While training, mean and variance are those of the step's batch over all processes; afterwards
    moving averages of them. Source: Zhou et al., Deep Interest Network, KDD 2018, equation 9.
    """

    mean: Tensor
    variance: Tensor
    steps: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor, counted: Tensor | None = None) -> Tensor:
        """[..., C] -> [..., C]; rows not `counted` [...] are left out of the statistics."""
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = _moments(x.to(self.mean.dtype), counted)
            self._keep(mean.detach(), variance.detach())
        share = torch.sigmoid((x - mean) * (variance + _EPSILON).rsqrt()).to(x.dtype)
        alpha = self.alpha.to(x.dtype)
        return x * (alpha + share * (1 - alpha))

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        """Moving averages; of the first steps plain ones, so that where they start is forgotten."""
        self.steps += 1
        share = (1 / self.steps).clamp(min=_MOMENTUM)
        self.mean.lerp_(mean, share)
        self.variance.lerp_(variance, share)


def _moments(x: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and variance [C] of the rows that are counted, over all processes."""
    rows = x.flatten(0, -2)
    if counted is None:
        number = rows.new_tensor([float(rows.shape[0])])
    else:
        weights = counted.flatten().to(rows.dtype)
        rows, number = rows * weights.unsqueeze(1), weights.sum().unsqueeze(0)
    group = current_group()
    total, number = group.differentiable_sum(torch.cat([rows.sum(0), number])).split(
        [rows.shape[1], 1]
    )
    mean = total / number.clamp(min=1)
    apart = rows - mean if counted is None else rows - mean * weights.unsqueeze(1)
    squares = group.differentiable_sum(apart.square().sum(0))
    return mean, squares / number.clamp(min=1)
