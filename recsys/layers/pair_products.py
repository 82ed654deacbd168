"""Products of a history's events with weights that are made for each item, or the other way round,
and their gradients.

B requests, M items of each, L events of a history, I numbers of an item, H channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_PART = 64  # requests times items: their weights stay in a processor's cache


class PairProducts(torch.autograd.Function):
    """`out[b, l, m, h] = constant[b, m, h] + sum_i keys[b, l, i] w[b, m, h, i]` with
    `w = of_key + of_product * queries`, from queries [B, M, I] and keys [B, L, I].

    In one piece for training: of the weights [B, M, H, I] autograd would keep and write several of
    their size, more than all else that a step reads. Here they are made anew, a few requests at a
    time.
    """

    @staticmethod
    def forward(
        context: Any,
        queries: Tensor,
        keys: Tensor,
        of_key: Tensor,
        of_product: Tensor,
        constant: Tensor,
    ) -> Tensor:
        """[B, L, M, H]."""
        out = keys.new_empty(*keys.shape[:2], *constant.shape[1:])
        parts = (each.split(_size(queries)) for each in (queries, keys, constant, out))
        for q, k, c, o in zip(*parts, strict=True):
            weights = _weights(q, of_key, of_product)
            o.copy_(torch.baddbmm(c.flatten(1).unsqueeze(1), k, weights.mT).view(o.shape))
        context.save_for_backward(queries, keys, of_key, of_product)
        return out

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """Of everything that `forward` is given."""
        queries, keys, of_key, of_product = context.saved_tensors
        of_queries, of_keys = torch.empty_like(queries), torch.empty_like(keys)
        sums = [torch.zeros_like(of_key), torch.zeros_like(of_product)]
        whole = (queries, keys, gradient.flatten(2), of_queries, of_keys)
        for q, k, g, to_q, to_k in zip(*(x.split(_size(queries)) for x in whole), strict=True):
            torch.bmm(g, _weights(q, of_key, of_product), out=to_k)
            of_weights = torch.bmm(g.mT, k).unflatten(1, (q.shape[1], -1))  # [B, M, H, I]
            torch.sum(of_weights * of_product, 2, out=to_q)
            sums[0] += of_weights.sum((0, 1))
            sums[1] += of_weights.mul_(q.unsqueeze(2)).sum((0, 1))
        return of_queries, of_keys, *sums, gradient.sum(1)


def _weights(queries: Tensor, of_key: Tensor, of_product: Tensor) -> Tensor:
    """[B, M H, I]."""
    return (of_product * queries.unsqueeze(2)).add_(of_key).flatten(1, 2)


def _size(queries: Tensor) -> int:
    """Requests of a part; a GPU takes all at once."""
    requests, items = queries.shape[:2]
    return max(1, _PART // items if queries.device.type == "cpu" else requests)
