"""Causal self-attention over sequences that are padded behind."""

from __future__ import annotations

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
        b, t, d = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, heads, T, D / heads] each
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.out(attended.transpose(1, 2).reshape(b, t, d)))
        return x + self.drop(self.feed(self.feed_norm(x)))
