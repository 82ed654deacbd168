"""HSTU's attention: pointwise, biased by how far apart events are in order and in time.

B users, H heads, T positions, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.layers.dropout import Dropout

BUCKETS = 129
_STD = 0.02
_CHUNK_SCORES = 1 << 19  # attention weights held at a time: 2 MB of float32 on a processor


class HSTUBlock(nn.Module):
    """`Y = X + Linear( dropout( U * LN(A V) ) )`, `[U, V, Q, K] = split(silu(LN(X) W))`,
    `A = causal( silu(Q K^T + b) ) / n`. Zhai et al., "Actions speak louder than words", ICML 2024,
    as their released code has it: norms without weights, and no softmax.

    `n` is the longest history, and by it A V is so small that the norms' `epsilon` decides how much
    a block does after a short one. The bias is `b_ij = position[i - j] + time[bucket_ij]`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        length: int,
        dropout: float,
        *,
        timed: bool,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.width, self.heads, self.head_width, self.length = width, heads, head_width, length
        self.weight = nn.Parameter(torch.empty(width, 4 * heads * head_width).normal_(std=_STD))
        self.position = nn.Parameter(torch.empty(length).normal_(std=_STD))
        self.time = nn.Parameter(torch.empty(BUCKETS).normal_(std=_STD)) if timed else None
        self.out = nn.Linear(heads * head_width, width)
        nn.init.xavier_uniform_(self.out.weight)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, buckets: Tensor | None) -> Tensor:
        """[B, T, D] and buckets [B, T, T] -> [B, T, D]; position t sees positions 0..t."""
        b, t, _ = x.shape
        projected = F.silu(F.layer_norm(x, (self.width,), eps=self.epsilon) @ self.weight)
        u, v, q, k = projected.view(b, t, 4, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        if torch.is_grad_enabled() and self.training:
            attended = _PointwiseAttention.apply(
                q, k, v, self.position, self.time, buckets, self.length
            )
        else:
            attended = pointwise_attention(q, k, v, self.position, self.time, buckets, self.length)
        attended = F.layer_norm(
            attended.transpose(1, 2).flatten(2),
            (v.shape[1] * v.shape[3],),
            eps=self.epsilon,
        )
        gate = u.transpose(1, 2).flatten(2)
        return x + self.out(self.drop(gate * attended))


def time_buckets(times: Tensor, following: Tensor) -> Tensor:
    """`floor( ln(max(1, |following_i - times_j|)) / 0.301 )` [B, T, T] int32, at most 128.

    Args:
        times: seconds [B, T] of the events.
        following: seconds [B, T] of the event, or request, that comes after each.
    """
    gap = (following.unsqueeze(2) - times.unsqueeze(1)).abs_().clamp_(min=1)
    return (gap.to(torch.float32).log_() / 0.301).to(torch.int32).clamp_(max=BUCKETS - 1)


def pointwise_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    position: Tensor,
    time: Tensor | None,
    buckets: Tensor | None,
    length: int,
) -> Tensor:
    """`causal( silu(Q K^T + b) ) V / length` [B, H, T, d] of q, k, v [B, H, T, d]."""
    scores = F.silu(_scores(q, k, _of_positions(position, q.shape[2]), time, buckets))
    return torch.tril(scores) @ v / length


def _of_positions(position: Tensor, length: int) -> Tensor:
    """[T, T]: `position[i - j]` where j <= i."""
    steps = torch.arange(length, device=position.device)
    return position[(steps.unsqueeze(1) - steps).clamp(min=0)]


def _scores(
    q: Tensor, k: Tensor, of_positions: Tensor, time: Tensor | None, buckets: Tensor | None
) -> Tensor:
    scores = q @ k.transpose(2, 3) + of_positions
    if time is not None and buckets is not None:
        scores = scores + time[buckets.long()].unsqueeze(1)
    return scores


class _PointwiseAttention(torch.autograd.Function):
    """`pointwise_attention` whose [B, H, T, T] weights are never held whole: they are made for a
    few users at a time, and once more in the backward pass.

    Vectors may be narrower than the biases, as under autocast: products are then taken of narrow
    numbers, and the weights between them are made of wide ones.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        position: Tensor,
        time: Tensor | None,
        buckets: Tensor | None,
        length: int,
    ) -> Tensor:
        """[B, H, T, d]."""
        ctx.save_for_backward(q, k, v, position, time, buckets)
        ctx.length = length
        of_positions = _of_positions(position, q.shape[2])
        out = torch.empty_like(v, memory_format=torch.contiguous_format)
        with torch.autocast(q.device.type, enabled=False):  # it casts no `out`
            for rows in _chunks(q):
                of_rows = None if buckets is None else buckets[rows]
                scores = _scores(q[rows], k[rows], of_positions, time, of_rows)
                weights = F.silu(scores, inplace=True).tril_()
                torch.matmul(weights.to(v.dtype), v[rows], out=out[rows])
        return out.div_(length)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of q, k, v and both biases."""
        q, k, v, position, time, buckets = ctx.saved_tensors
        t = q.shape[2]
        of_positions = _of_positions(position, t)
        of_q, of_k, of_v = (
            torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v)
        )
        by_pair = torch.zeros_like(of_positions)
        of_time = None if time is None else torch.zeros_like(time)
        grad = grad / ctx.length
        for rows in _chunks(q):
            of_rows = None if buckets is None else buckets[rows]
            scores = _scores(q[rows], k[rows], of_positions, time, of_rows)
            share = torch.sigmoid(scores)
            # d silu(s) = sigmoid(s) (1 + s (1 - sigmoid(s)))
            slope = torch.addcmul(share, share * scores, 1 - share).tril_()
            weights = scores.mul_(share).tril_()
            torch.matmul(weights.to(v.dtype).transpose(2, 3), grad[rows], out=of_v[rows])
            of_scores = slope.mul_(grad[rows] @ v[rows].transpose(2, 3))
            by_user = of_scores.sum(1)
            of_scores = of_scores.to(q.dtype)
            torch.matmul(of_scores, k[rows], out=of_q[rows])
            torch.matmul(of_scores.transpose(2, 3), q[rows], out=of_k[rows])
            by_pair += by_user.sum(0)
            if of_rows is not None and of_time is not None:
                by_bucket = torch.bincount(of_rows.flatten(), by_user.flatten(), BUCKETS)
                of_time += by_bucket.to(time.dtype)
        steps = torch.arange(t, device=q.device)
        ago = (steps.unsqueeze(1) - steps).clamp(min=0)
        of_position = torch.zeros_like(position).index_add_(0, ago.flatten(), by_pair.flatten())
        return of_q, of_k, of_v, of_position, of_time, None, None


def _chunks(q: Tensor) -> list[slice]:
    """Slices of users whose attention weights fit the processor's cache; on a GPU, few of them."""
    per_user = q.shape[1] * q.shape[2] ** 2
    size = max(1, (_CHUNK_SCORES << (8 if q.is_cuda else 0)) // per_user)
    return [slice(first, first + size) for first in range(0, len(q), size)]
