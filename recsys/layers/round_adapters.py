"""What tells a model, in a later round of retrieval, what the earlier ones have found.

Li et al., "Ada-Retrieval: an adaptive multi-round retrieval paradigm for sequential
recommendations", AAAI 2024. B users, T events, R earlier rounds, L items a round, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recsys.layers.dropout import Dropout
from recsys.layers.frequency_filter import FrequencyFilter

# Adapters start with little to say, so that later rounds start near the backbone's own: with gains
# of 1 and other layers at random they find a fifth less, which a short training does not make up.
_GAIN = 0.1  # of norms; vectors of trained items have about this size


class ItemAdapter(nn.Module):
    """Events that have looked at the lists of earlier rounds: `LN( dropout(A C) + S )`,
    `A = softmax(S C^T / sqrt(D))`, where C are the filtered lists and S the events."""

    def __init__(self, length: int, width: int, dropout: float) -> None:
        super().__init__()
        self.filter = FrequencyFilter(length, width, dropout)
        self.drop = Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        for norm in (self.filter.norm, self.norm):
            nn.init.constant_(norm.weight, _GAIN)

    def forward(self, events: Tensor, lists: Tensor) -> Tensor:
        """Events [B, T, D] and lists [B, R, L, D] -> [B, T, D]."""
        context = self.filter(lists.flatten(0, 1)).unflatten(0, lists.shape[:2]).flatten(1, 2)
        attention = events @ context.transpose(1, 2) / math.sqrt(events.shape[2])
        return self.norm(self.drop(attention.softmax(2) @ context) + events)  # type: ignore[no-any-return]


class UserAdapter(nn.Module):
    """A user's vector that knows those of earlier rounds, `LN(dropout(W2 relu(W1 [u; c])) + u)`,
    where c is what a GRU has read of them."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.memory = nn.GRU(width, width, batch_first=True)
        mixed = nn.Linear(2 * width, width)
        self.mix = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.ReLU(), mixed)
        self.drop = Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(mixed.weight)
        nn.init.zeros_(mixed.bias)

    def forward(self, user: Tensor, earlier: Tensor) -> Tensor:
        """[B, D] and [B, R, D] -> [B, D]."""
        _, last = self.memory(earlier)
        mixed = self.mix(torch.cat([user, last.squeeze(0)], dim=1))
        return self.norm(self.drop(mixed) + user)  # type: ignore[no-any-return]
