"""Causal self-attention over sequences that are padded behind."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.layers.dropout import Dropout


class SelfAttentionBlock(nn.Module):
    """Pre-norm attention and feed-forward, each added to its input. Kang & McAuley, 2018.

    Padding lies behind every sequence, so the causal mask alone keeps it from being seen.
    Attention weights are not dropped out: that would forbid the fused kernels.
    """

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), Dropout(dropout), nn.Linear(hidden, width)
        )
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]; position t sees positions 0..t."""
        attended = causal_attention(self.qkv(self.attention_norm(x)), self.heads)
        x = x + self.drop(self.out(attended))
        return x + self.drop(self.feed(self.feed_norm(x)))


class GatedBlock(nn.Module):
    """As `SelfAttentionBlock`, with a SwiGLU feed-forward (Shazeer, 2020), and each half scaled by
    a sigmoid gate of its input before it is added, after LiGR (Borisyuk et al., 2024).

    The feed-forward is wider by `EXPANSION` than `hidden`, as its three matrices suggest.
    """

    EXPANSION = 4

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.attention_gate = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 2 * self.EXPANSION * hidden)
        self.feed_out = nn.Linear(self.EXPANSION * hidden, width)
        self.feed_gate = nn.Linear(width, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]; position t sees positions 0..t."""
        y = self.attention_norm(x)
        attended = self.out(causal_attention(self.qkv(y), self.heads))
        x = x + self.drop(attended) * torch.sigmoid(self.attention_gate(y))
        y = self.feed_norm(x)
        gate, value = self.feed_in(y).chunk(2, dim=-1)
        fed = self.feed_out(self.drop(F.silu(gate) * value))
        return x + self.drop(fed) * torch.sigmoid(self.feed_gate(y))


def causal_attention(qkv: Tensor, heads: int) -> Tensor:
    """Queries, keys and values [B, T, 3 D] -> [B, T, D]."""
    b, t, d = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = qkv.view(b, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)  # [B, heads, T, D/heads]
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return attended.transpose(1, 2).reshape(b, t, d)
