"""The adapters that a config may choose, which bring frozen vectors of texts into the space of a
model.

S numbers of a text's vector, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from recsys.options import Chosen, Kind


class AdapterKind(Kind, ABC):
    """An adapter and its options."""

    @abstractmethod
    def make(self, texts: int, width: int) -> nn.Module:
        """[n, S] -> [n, D]."""


class Linear(AdapterKind):
    """One linear map."""

    name: Literal["linear"] = "linear"

    def make(self, texts: int, width: int) -> nn.Module:
        """`nn.Linear`."""
        return nn.Linear(texts, width)


class Experts(AdapterKind):
    """`sum_e g_e(x) W_e (x - b_e)`, with the gates g = softmax(G x): whitenings that are learned,
    mixed by what a text is about. Hou et al., "Towards universal sequence representation learning
    for recommender systems" (UniSRec), KDD 2022, without the noise on its gates."""

    name: Literal["experts"] = "experts"
    experts: int = Field(8, ge=2, description="Linear maps that are mixed.")

    def make(self, texts: int, width: int) -> nn.Module:
        """`MixtureOfExperts`."""
        return MixtureOfExperts(texts, width, self.experts)


AnyAdapter = Annotated[Linear | Experts, Field(discriminator="name"), Chosen()]


class MixtureOfExperts(nn.Module):
    """Linear maps, each of a shifted x, and how much each counts for x."""

    def __init__(self, texts: int, width: int, experts: int) -> None:
        super().__init__()
        self.width = width
        self.maps = nn.Linear(texts, experts * width, bias=False)
        self.shifts = nn.Parameter(torch.zeros(experts, texts))
        self.gates = nn.Linear(texts, experts, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[n, S] -> [n, D]."""
        weights = self.maps.weight.unflatten(0, (-1, self.width))  # [E, D, S]
        moved = torch.einsum("eds,es->ed", weights, self.shifts)
        mapped = self.maps(x).unflatten(-1, (-1, self.width)) - moved
        return torch.einsum("...e,...ed->...d", self.gates(x).softmax(-1), mapped)
