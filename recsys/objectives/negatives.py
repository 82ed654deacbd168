"""Negative items, drawn alike on every process from the seed and the step."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["uniform", "popularity", "mixed"]


class NegativeSampler(nn.Module):
    """Draws items with replacement and keeps the distinct ones.

    `uniform` over known items, or in proportion to (training events)^`power`, or `mixed`: half of
    either (Yang et al., "Mixed negative sampling", WWW 2020).

    Known are the items that will be ranked. One of them without training events is never a target:
    unless it is drawn, nothing teaches its vector that it is unlikely, and by inner products it
    would be found before most that were trained.
    """

    probability: Tensor
    cumulative: Tensor

    def __init__(
        self,
        train_events: Tensor,
        kind: Kind = "uniform",
        *,
        known_events: Tensor | None = None,
        power: float = 0.75,
        seed: int = 0,
    ) -> None:
        super().__init__()
        uniform = ((train_events if known_events is None else known_events) > 0).double()
        popular = train_events.double() ** power * (train_events > 0)
        shares = {"uniform": (1.0, 0.0), "popularity": (0.0, 1.0), "mixed": (0.5, 0.5)}[kind]
        weights = shares[0] * uniform / uniform.sum() + shares[1] * popular / popular.sum()
        self.seed = seed
        self.items = int(uniform.sum())
        self.register_buffer("probability", weights / weights.sum(), persistent=False)
        self.register_buffer("cumulative", self.probability.cumsum(0), persistent=False)

    def sample(self, count: int, step: int, sets: int = 1) -> list[Tensor]:
        """Independent sets of at most `count` distinct item rows, ascending; the same for the same
        step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        points = torch.rand(sets, count, generator=generator, dtype=torch.float64)
        rows = torch.searchsorted(self.cumulative, points.to(self.cumulative.device), right=True)
        return [torch.unique(drawn) for drawn in rows.clamp(max=len(self.cumulative) - 1)]

    def everything(self) -> Tensor:
        """All items that could be drawn, ascending: for the softmax over the whole catalogue."""
        return self.probability.nonzero().squeeze(1)

    def log_expected(self, rows: Tensor, count: int) -> Tensor:
        """Log of the chance that each of `rows` is among `count` draws."""
        chance = -torch.expm1(count * torch.log1p(-self.probability[rows].clamp(max=1 - 1e-12)))
        return chance.clamp(min=1e-12).log().to(torch.float32)
