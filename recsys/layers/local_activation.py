"""The local activation unit: how much each event of a history matters to an item."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.layers.deep import ACTIVATIONS, Activation
from recsys.layers.dice import Dice
from recsys.layers.pair_products import PairProducts


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
        # Over [q, k, q - k, q * k]: linear in q given k, and in k given q, so that whichever of
        # them are fewer become the weights of one product with the others.
        self.of_query = nn.Linear(width, first)
        self.of_key = nn.Parameter(nn.Linear(width, first).weight.detach())
        self.of_product = nn.Parameter(nn.Linear(width, first).weight.detach())
        self.activations = nn.ModuleList(ACTIVATIONS[activation](size) for size in hidden)
        sizes = zip(hidden, others, strict=False)
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in sizes)
        self.last = nn.Linear(hidden[-1], 1)

    def forward(self, queries: Tensor, keys: Tensor, kept: Tensor) -> Tensor:
        """[B, M, I] of queries [B, M, I] over keys [B, L, I], of which some are `kept` [B, L]."""
        fewer_keys = queries.shape[1] > keys.shape[1]
        if torch.compiler.is_exporting():  # a program chooses whenever it is asked
            x = torch.cond(fewer_keys, self._by_keys, self._by_queries, (queries, keys))
        else:
            x = (self._by_keys if fewer_keys else self._by_queries)(queries, keys)
        counted = kept.unsqueeze(1).expand(-1, queries.shape[1], -1)
        for place, activation in enumerate(self.activations):
            x = self.layers[place - 1](x) if place else x
            x = activation(x, counted) if isinstance(activation, Dice) else activation(x)
        weights = self.last(x).squeeze(3)
        if self.softmax:
            weights = weights.masked_fill(~counted, torch.finfo(weights.dtype).min).softmax(2)
        return (weights * counted) @ keys

    def _by_queries(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The first layer [B, M, L, H], where weights of H x I are made for each of M queries."""
        x = self._products(queries, keys, self.of_key, self.of_query(queries))
        return x.transpose(1, 2).contiguous()

    def _by_keys(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The first layer [B, M, L, H], where weights of H x I are made for each of L keys."""
        constant = F.linear(keys, self.of_key, self.of_query.bias)
        return self._products(keys, queries, self.of_query.weight, constant)

    def _products(self, made_for: Tensor, others: Tensor, weight: Tensor, added: Tensor) -> Tensor:
        """[B, N, P, H] of `others` [B, N, I], with weights that are `made_for` [B, P, I], and of
        those what is `added` [B, P, H]."""
        if torch.is_grad_enabled() and not torch.is_autocast_enabled(others.device.type):
            products: Tensor = PairProducts.apply(made_for, others, weight, self.of_product, added)
            return products
        weights = weight + self.of_product * made_for.unsqueeze(2)  # [B, P, H, I]
        x = torch.baddbmm(
            added.flatten(1).unsqueeze(1), others, weights.flatten(1, 2).transpose(1, 2)
        )
        return x.unflatten(2, weights.shape[1:3])
