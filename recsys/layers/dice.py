"""Dice, the activation that adapts to its inputs' distribution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recsys.distributed import current_group

_EPSILON = 1e-8
_MOMENTUM = 0.01
_CACHED = 1 << 16  # numbers of a tensor that are read and written again before others come


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

    In one piece and, on CPUs, a part of the rows after the other: as a chain of small operations
    over all of them it would read and write memory several times as often, which is what it costs.
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
        squares = torch.zeros_like(mean)
        for r, w in _parts(rows, weights):
            squares += w @ (r - mean).square_()
        variance = group.sum(squares) / count
        scale = (variance + _EPSILON).rsqrt()
        share, out = torch.empty_like(rows), torch.empty_like(rows)
        for r, s, o in _parts(rows, share, out):
            torch.sub(r, mean, out=s).mul_(scale).sigmoid_()
            torch.mul(s, 1 - alpha, out=o).add_(alpha).mul_(r)
        context.save_for_backward(rows, share, alpha, weights, mean, scale, count)
        context.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of rows and alpha; other processes' rows have a part in the statistics."""
        rows, share, alpha, weights, mean, scale, count = context.saved_tensors
        gradient, of_rows = gradients[0].contiguous(), torch.empty_like(rows)
        of_alpha, sums = torch.zeros_like(alpha), torch.zeros_like(torch.stack([mean, mean]))
        for r, s, g, o in _parts(rows, share, gradient, of_rows):
            torch.mul(g, r, out=o)
            apart = o * s
            of_alpha += o.sum(0) - apart.sum(0)
            # with respect to (s - E) / sqrt(Var): from every row, through the statistics to those
            # that are counted, wherever they are
            torch.mul(apart, 1 - s, out=o).mul_(1 - alpha)
            sums[0] += o.sum(0)
            sums[1] += torch.sub(r, mean, out=apart).mul_(scale).mul_(o).sum(0)
        of_mean, of_scale = current_group().sum(sums) / count
        for r, s, g, w, o in _parts(rows, share, gradient, weights.unsqueeze(1), of_rows):
            through = (r - mean).mul_(scale).mul_(of_scale).add_(of_mean).mul_(w)
            o.sub_(through).mul_(scale)
            o.add_(torch.mul(s, 1 - alpha, out=through).add_(alpha).mul_(g))
        return of_rows, of_alpha, None


def _parts(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of each, as many at a time as stay in a processor's cache; a GPU takes all."""
    rows = len(tensors[0])
    on_cpu = tensors[0].device.type == "cpu"
    size = max(1, _CACHED // tensors[0].shape[1]) if on_cpu else max(1, rows)
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)
