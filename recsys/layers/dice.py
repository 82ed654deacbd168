"""Dice, the activation that adapts to its inputs' distribution."""

from __future__ import annotations

from typing import Any

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
        if not self.training:
            scale = (self.variance + _EPSILON).rsqrt()  # fused: what counts is how often x is read
            share = torch.addcmul(-self.mean * scale, x, scale).sigmoid_()
            return (x * torch.addcmul(self.alpha, share, 1 - self.alpha)).to(x.dtype)
        rows = x.flatten(0, -2).to(self.mean.dtype)
        weights = rows.new_ones(len(rows)) if counted is None else counted.flatten().to(rows.dtype)
        with torch.autocast(x.device.type, enabled=False):  # statistics need all their digits
            out, mean, variance = _ByBatch.apply(rows, self.alpha, weights)
        self._keep(mean, variance)
        return out.view(x.shape).to(x.dtype)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor) -> None:
        """Moving averages; of the first steps plain ones, so that where they start is forgotten."""
        self.steps += 1
        share = (1 / self.steps).clamp(min=_MOMENTUM)
        self.mean.lerp_(mean, share)
        self.variance.lerp_(variance, share)


class _ByBatch(torch.autograd.Function):
    """Dice of rows [n, C] by the statistics of those that weigh 1 and not 0, over all processes.

    In one piece: as a chain of small operations it would read and write the rows three times as
    often, which is what it costs.
    """

    @staticmethod
    def forward(
        context: Any, rows: Tensor, alpha: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The rows, activated [n, C], and the mean and the variance [C] that they were by."""
        group = current_group()
        sums = group.sum(torch.cat([weights @ rows, weights.sum().unsqueeze(0)]))
        count = sums[-1].clamp(min=1)
        mean = sums[:-1] / count
        apart = rows - mean
        variance = group.sum(weights @ apart.square()) / count
        scale = (variance + _EPSILON).rsqrt()
        share = apart.mul_(scale).sigmoid_()
        out = (share * (1 - alpha)).add_(alpha).mul_(rows)
        context.save_for_backward(rows, share, alpha, weights, mean, scale, count)
        context.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of rows and alpha; other processes' rows have a part in the statistics."""
        rows, share, alpha, weights, mean, scale, count = context.saved_tensors
        gradient = gradients[0]
        inner = gradient * rows
        of_alpha = inner.sum(0) - torch.linalg.vecdot(inner, share, dim=0)
        # with respect to (s - E) / sqrt(Var): from every row, through the statistics to those that
        # are counted, wherever they are
        inner.mul_(torch.addcmul(share, share, share, value=-1)).mul_(1 - alpha)
        apart = (rows - mean).mul_(scale)
        sums = torch.stack([inner.sum(0), torch.linalg.vecdot(inner, apart, dim=0)])
        of_mean, of_scale = current_group().sum(sums) / count
        through = torch.addcmul(of_mean, apart, of_scale).mul_(weights.unsqueeze(1))
        inner.sub_(through).mul_(scale)
        of_rows = (share * (1 - alpha)).add_(alpha).mul_(gradient).add_(inner)
        return of_rows, of_alpha, None
