"""Retrievers that learn by gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor

from recsys.data.examples import Examples
from recsys.embeddings.options import EmbeddingsConfig
from recsys.model import TrainedModel
from recsys.objectives.objective import Objective, ObjectiveConfig
from recsys.retrievers.base import VectorRetriever
from recsys.retrievers.prefix import Prefix, Shortlisted

SHORTLIST = 200  # items that the narrowest of nested vectors are asked for


class TrainedRetriever(VectorRetriever, TrainedModel):
    """A vector retriever that learns by gradient, from what its `objective` draws."""

    config: ObjectiveConfig
    objective: Objective

    @classmethod
    def make(
        cls, config: Any, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
    ) -> Self:
        """A retriever that has learned nothing, from a `Config`."""
        return cls(config, embeddings, examples, seed)  # type: ignore[call-arg]

    def compared(self, vectors: Tensor) -> Tensor:
        """Vectors [..., D] as the loss compares them."""
        return self.objective.unit(vectors)

    def variants(self) -> Mapping[str, VectorRetriever]:
        """Of nested vectors, what each width finds alone, and what a shortlist of the narrowest
        does that the whole vectors rank."""
        widths = self.objective.config.matryoshka
        variants: dict[str, VectorRetriever] = {f"width_{w}": Prefix(self, w) for w in widths}
        for width in widths[:1]:
            variants[f"width_{width}_reranked"] = Shortlisted(self, width, SHORTLIST)
        return variants
