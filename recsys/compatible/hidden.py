"""A hidden layer between a new model and the old index."""

from __future__ import annotations

from copy import deepcopy
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Hidden(nn.Module):
    """`gelu(x V + b) U` of vectors [..., width], x having a mean square of 1; [..., other] beside
    what a matrix makes of them, and nothing to begin with.

    A matrix has to give up what the narrower old space has no room for, the same for everybody; a
    hidden layer does so query by query.
    """

    inner: Tensor
    shift: Tensor
    outer: Tensor

    def __init__(self, width: int, hidden: int, other: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)  # the model's own draws stay what they were
        self.inner = nn.Parameter(torch.randn(width, hidden, generator=generator) / width**0.5)
        self.shift = nn.Parameter(torch.zeros(hidden))
        self.outer = nn.Parameter(torch.zeros(hidden, other))

    def forward(self, vectors: Tensor) -> Tensor:
        """What is added."""
        even = F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5
        return F.gelu(even @ self.inner + self.shift) @ self.outer

    def settled(self) -> Self:
        """The same layer, which learns no more."""
        copy = deepcopy(self)
        for name, weight in list(copy.named_parameters()):
            delattr(copy, name)
            copy.register_buffer(name, weight.detach())
        return copy
