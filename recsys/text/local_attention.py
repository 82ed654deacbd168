"""Longformer's attention: every token sees those near it and the first one, which sees all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def near_or_first(mask: Tensor, window: int) -> Tensor:
    """Which tokens [B, 1, S, S] each token sees, of those in `mask` [B, S]: `window` / 2 on either
    side, itself, and the first one, which sees all."""
    at = torch.arange(mask.shape[1], device=mask.device)
    seen = ((at[:, None] - at).abs() <= window // 2) | (at == 0) | (at[:, None] == 0)
    return seen & mask[:, None, None, :]


class LocalAttention(nn.Module):
    """Attention of Beltagy et al., 2020, with the first token as the only global one.

    It takes the place of the one of transformers' Longformer, whose weights it keeps under the same
    names: the answers are equal, but it works with fused kernels, and can be exported since no
    shape depends on values.
    """

    def __init__(self, attention: Any) -> None:
        """Of a `LongformerSelfAttention`, its projections."""
        super().__init__()
        self.heads: int = attention.num_heads
        self.dropout: float = attention.dropout
        self.query, self.query_global = attention.query, attention.query_global
        self.key, self.key_global = attention.key, attention.key_global
        self.value, self.value_global = attention.value, attention.value_global

    def forward(self, hidden: Tensor, attention_mask: Tensor, **_: object) -> tuple[Tensor]:
        """[B, S, D] -> [B, S, D]; the mask [B, 1, S, S] is that of `near_or_first`."""
        near = self._attend(
            self.query(hidden), self.key(hidden), self.value(hidden), attention_mask
        )
        first = self._attend(
            self.query_global(hidden[:, :1]),
            self.key_global(hidden),
            self.value_global(hidden),
            attention_mask[:, :, :1],
        )
        return (torch.cat([first, near[:, 1:]], dim=1),)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)
        )
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, mask, dropout)
        return attended.transpose(1, 2).flatten(2)
