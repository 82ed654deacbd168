"""Vectors of distinct rows, spread to wherever the rows stand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Spread(torch.autograd.Function):
    """`out[j] = vectors[places[j]]` where `kept[j]`, and 0 elsewhere.

    Vectors [U, D], places [n] and kept [n] -> [n, D]. The gradient of a vector is the sum over its
    places, in their order: each is read once and written once, where autograd would mask, copy and
    add all n of them.
    """

    @staticmethod
    def forward(context: Any, vectors: Tensor, places: Tensor, kept: Tensor) -> Tensor:
        """[n, D]."""
        context.save_for_backward(places, kept)
        context.rows = len(vectors)
        out = vectors.index_select(0, places)
        return out.index_fill_(0, (~kept).nonzero().squeeze(1), 0.0)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Of the vectors."""
        places, kept = context.saved_tensors
        read = torch.where(kept, places, context.rows)  # what is not kept comes last, after all
        counts = torch.bincount(read, minlength=context.rows + 1)[:-1]
        ends = F.pad(counts.cumsum(0), (1, 0))
        order = read.argsort(stable=True)[: int(ends[-1])]
        summed = F.embedding_bag(
            order, gradients[0].contiguous(), ends, mode="sum", include_last_offset=True
        )
        return summed, None, None
