"""The local activation unit: how much each event of a history matters to an item."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from recsys.layers.deep import ACTIVATIONS, Activation
from recsys.layers.dice import Dice


class LocalActivation(nn.Module):
    """`sum_l a(q, k_l) k_l`, where a is a network over [q, k, q - k, q * k]. Zhou et al., Deep
    Interest Network, KDD 2018, equation 3.

    The weights a are not normalised: their sum says how strong the interest is. With `softmax`
    they sum to 1.
    """

    def __init__(
        self, width: int, hidden: Sequence[int], activation: Activation, *, softmax: bool
    ) -> None:
        super().__init__()
        self.softmax = softmax
        first, *others = hidden
        # Over [q, k, q - k, q * k]: what is linear in q alone is taken of items and not of pairs,
        # and what is linear in k, given q, is one product: (of_key + of_product * q) k.
        self.of_query = nn.Linear(width, first)
        self.of_key = nn.Parameter(nn.Linear(width, first).weight.detach())
        self.of_product = nn.Parameter(nn.Linear(width, first).weight.detach())
        self.activations = nn.ModuleList(ACTIVATIONS[activation](size) for size in hidden)
        sizes = zip(hidden, others, strict=False)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in sizes)
        self.last = nn.Linear(hidden[-1], 1)

    def forward(self, queries: Tensor, keys: Tensor, kept: Tensor) -> Tensor:
        """[B, M, I] of queries [B, M, I] over keys [B, L, I], of which some are `kept` [B, L]."""
        of_keys = self.of_key + self.of_product * queries.unsqueeze(2)  # [B, M, H, I]
        constant = self.of_query(queries).flatten(1).unsqueeze(1)  # [B, 1, M H]
        x = torch.baddbmm(constant, keys, of_keys.flatten(1, 2).transpose(1, 2))
        x = x.unflatten(2, of_keys.shape[1:3])  # [B, L, M, H]
        counted = kept.unsqueeze(2).expand(-1, -1, queries.shape[1])
        for place, activation in enumerate(self.activations):
            x = self.layers[place - 1](x) if place else x
            x = activation(x, counted) if isinstance(activation, Dice) else activation(x)
        weights = self.last(x).squeeze(3)
        if self.softmax:
            weights = weights.masked_fill(~counted, torch.finfo(weights.dtype).min).softmax(1)
        return (weights * counted).transpose(1, 2) @ keys
