"""RetroMAE's decoder: one layer that has to rebuild a sentence from its vector.

B sentences, S tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def visible(present: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """What each position [S] of a sentence sees of it [B, S, S]: always the first position, which
    holds the sentence's vector, never itself, and of the others that are `present` [B, S] a new
    `share` each. The generator is on the CPU, so that every device sees the same."""
    batch, length = present.shape
    drawn = torch.rand(batch, length, length, generator=generator).to(present.device) < share
    itself = torch.eye(length, dtype=torch.bool, device=present.device)
    seen = drawn & present.unsqueeze(1) & ~itself
    first = torch.arange(length, device=present.device) == 0
    return seen | first


class EnhancedDecoder(nn.Module):
    """One Transformer layer whose queries are the sentence's vector at every position, and whose
    keys and values are the tokens as they are. What is weak on its own needs a vector that says
    what is in the sentence. Source: Xiao et al., RetroMAE, EMNLP 2022, section 3.
    """

    def __init__(self, width: int, heads: int, positions: int) -> None:
        super().__init__()
        self.heads = heads
        self.positions = nn.Parameter(torch.empty(positions, width))
        nn.init.normal_(self.positions, std=0.02)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.feed_norm = nn.LayerNorm(width)

    def forward(self, vectors: Tensor, tokens: Tensor, seen: Tensor) -> Tensor:
        """What is told at every position [B, S, D].

        Args:
            vectors: of sentences [B, D].
            tokens: vectors of their tokens, of which none is hidden [B, S, D]; the first is not
                read.
            seen: which positions each position sees [B, S, S], as of `visible`.
        """
        batch, length, width = tokens.shape
        places = self.positions[:length]
        asked = vectors.unsqueeze(1) + places
        known = torch.cat([vectors.unsqueeze(1), tokens[:, 1:] + places[1:]], dim=1)
        query = self.query(asked).view(batch, length, self.heads, -1).transpose(1, 2)
        key, value = (
            self.key_value(known).view(batch, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=seen.unsqueeze(1))
        attended = self.out(attended.transpose(1, 2).reshape(batch, length, width))
        told = self.norm(asked + attended)
        return self.feed_norm(told + self.feed(told))
