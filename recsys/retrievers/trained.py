"""Retrievers that learn by gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor

from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader
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

    def training_reader(
        self, examples: Examples, config: ReaderConfig, *, seed: int, rank: int, world: int
    ) -> Reader:
        """As of any trained model. Where the batch's targets are its negatives and `log_q` says how
        often they are expected there, they must be any targets: not, as in buckets, those of users
        with histories of one length, who like what others do not."""
        if self.objective.config.negative_sampling == "in_batch" and self.objective.config.log_q:
            config = config.model_copy(update={"bucket_batches": 0})
        return super().training_reader(examples, config, seed=seed, rank=rank, world=world)

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
