"""From what an encoder makes of a token to which token it is. V tokens, D width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenHead(nn.Module):
    """`LayerNorm(GELU(W h + b)) E^T + c` with the encoder's own token table E, as in BERT."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, hidden: Tensor, table: Tensor) -> Tensor:
        """Logits [..., V] from [..., D] and the table [V, D]."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), table, self.bias)
