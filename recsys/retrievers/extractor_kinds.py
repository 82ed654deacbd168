"""The extractors of interests that a config may choose, each with the options that it alone has.

K interests, P targets, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from recsys.layers.interests import (
    HCN,
    MIND,
    ComiRecDR,
    ComiRecSA,
    Extractor,
    Interests,
    MeanPooling,
)
from recsys.options import Chosen, Kind

_ITERATIONS = "Of the routing."


class ExtractorKind(Kind, ABC):
    """An extractor and its options."""

    @abstractmethod
    def make(self, width: int, length: int) -> Extractor:
        """The extractor for vectors of `width`, of at most `length` events."""

    def choose(self, interests: Interests, targets: Tensor, temperature: float) -> Tensor:
        """The vector [P, D] that a target [P, D] trains: the one that suits it best."""
        vectors, present = interests
        scores = torch.einsum("pkd,pd->pk", vectors, targets)
        best = scores.masked_fill(~present, float("-inf")).argmax(1)
        return vectors[torch.arange(len(best), device=best.device), best]


class _Several(ExtractorKind):
    interests: int = Field(4, ge=1, description="K.")


class MeanKind(ExtractorKind):
    """One vector, of the mean of the history."""

    name: Literal["mean"] = "mean"

    def make(self, width: int, length: int) -> Extractor:
        """`MeanPooling`."""
        return MeanPooling(width, 1, length)


class MINDKind(_Several):
    """Li et al., CIKM 2019."""

    name: Literal["mind"] = "mind"
    iterations: int = Field(3, ge=1, description=_ITERATIONS)
    label_power: float = Field(
        1.0,
        ge=0,
        le=10,
        description="The target attends to the interests by its logits to this power.",
    )

    def make(self, width: int, length: int) -> Extractor:
        """`MIND`."""
        return MIND(width, self.interests, length, self.iterations)

    def choose(self, interests: Interests, targets: Tensor, temperature: float) -> Tensor:
        """`V softmax((V^T e / temperature) ^ label_power)`, with negative products as 0."""
        vectors, present = interests
        scores = torch.einsum("pkd,pd->pk", vectors, targets)
        logits = (scores / temperature).clamp(min=0) ** self.label_power
        weights = logits.masked_fill(~present, float("-inf")).softmax(1)
        return torch.einsum("pk,pkd->pd", weights, vectors)


class ComiRecDRKind(_Several):
    """Dynamic routing of Cen et al., KDD 2020."""

    name: Literal["comirec_dr"] = "comirec_dr"
    iterations: int = Field(3, ge=1, description=_ITERATIONS)

    def make(self, width: int, length: int) -> Extractor:
        """`ComiRecDR`."""
        return ComiRecDR(width, self.interests, length, self.iterations)


class ComiRecSAKind(_Several):
    """Self-attention of Cen et al., KDD 2020."""

    name: Literal["comirec_sa"] = "comirec_sa"

    def make(self, width: int, length: int) -> Extractor:
        """`ComiRecSA`."""
        return ComiRecSA(width, self.interests, length)


class HCNKind(_Several):
    """After Yuan et al., 2022."""

    name: Literal["hcn"] = "hcn"
    short_length: int = Field(10, ge=1, description="Newest events that are the short history.")
    levels: int = Field(3, ge=1, description="How often centres are moved.")

    def make(self, width: int, length: int) -> Extractor:
        """`HCN`."""
        return HCN(width, self.interests, length, self.short_length, self.levels)


AnyExtractor = Annotated[
    MeanKind | MINDKind | ComiRecDRKind | ComiRecSAKind | HCNKind,
    Field(discriminator="name"),
    Chosen(),
]
