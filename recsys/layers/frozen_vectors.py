"""Vectors that no training changes."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class FrozenVectors(nn.Module):
    """Rows [...] -> vectors [..., S] of a matrix [N, S] that was fitted to N items.

    It is saved with the weights, which have learned to read it: fitted to other items its numbers
    mean something else.
    """

    vectors: Tensor

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)

    @property
    def items(self) -> int:
        """N."""
        return len(self.vectors)

    @property
    def width(self) -> int:
        """S."""
        return self.vectors.shape[1]

    def forward(self, rows: Tensor) -> Tensor:
        """Look up."""
        return F.embedding(rows, self.vectors)

    def means(self, rows: Tensor) -> Tensor:
        """Means [B, S] over the rows [B, T] that are not 0; 0 where all are."""
        return F.embedding_bag(rows, self.vectors, mode="mean", padding_idx=0)
