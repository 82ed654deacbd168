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
        # of [q, k, q - k, q * k]: what is linear in q and k alone is taken of each by itself,
        # as many times as there are items and events, and not pairs of them
        self.of_query = nn.Linear(width, first)
        self.of_key = nn.Linear(width, first, bias=False)
        self.of_product = nn.Linear(width, first, bias=False)
        self.activations = nn.ModuleList(ACTIVATIONS[activation](size) for size in hidden)
        sizes = zip(hidden, others, strict=False)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in sizes)
        self.last = nn.Linear(hidden[-1], 1)

    def forward(self, queries: Tensor, keys: Tensor, kept: Tensor) -> Tensor:
        """[B, M, I] of queries [B, M, I] over keys [B, L, I], of which some are `kept` [B, L]."""
        pairs = self.of_product(queries.unsqueeze(2) * keys.unsqueeze(1))
        x = pairs + self.of_query(queries).unsqueeze(2) + self.of_key(keys).unsqueeze(1)
        counted = kept.unsqueeze(1).expand(-1, queries.shape[1], -1)
        for place, activation in enumerate(self.activations):
            x = self.layers[place - 1](x) if place else x
            x = activation(x, counted) if isinstance(activation, Dice) else activation(x)
        weights = self.last(x).squeeze(3)
        if self.softmax:
            weights = weights.masked_fill(~counted, torch.finfo(weights.dtype).min).softmax(2)
        return torch.matmul(weights * counted, keys)
