"""Several vectors a user, one for each interest; an item scores as its best one.

B users, K interests, T positions, D width, P targets.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from feature_store.columns import HISTORY
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.embeddings.layout import make_layout
from recsys.embeddings.options import EmbeddingsConfig
from recsys.embeddings.tables import Embeddings
from recsys.inputs import History
from recsys.layers.dropout import Dropout
from recsys.layers.interests import Interests, nearest, newest_first
from recsys.lists.merging import MERGES
from recsys.model import Loss, answering
from recsys.objectives.objective import Objective, ObjectiveConfig
from recsys.objectives.targets import draw_targets, targets_of_sequences
from recsys.retrievers.base import Queries
from recsys.retrievers.extractor_kinds import AnyExtractor, ComiRecSAKind
from recsys.retrievers.trained import TrainedRetriever


class MultiInterestConfig(ObjectiveConfig):
    """MIND (Li et al., CIKM 2019), ComiRec (Cen et al., KDD 2020), HCN (Yuan et al., 2022), and
    the mean of the history as their rival with one vector."""

    name: Literal["multi_interest"] = "multi_interest"
    extractor: AnyExtractor = Field(
        ComiRecSAKind(),
        description="What makes interests of a history; by its name, or as a table.",
    )
    max_length: int = Field(50, ge=1, description="T: events of the history that are read.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Of the events' vectors.")
    targets_per_user: int = Field(
        4, ge=1, description="Events of a history that a step trains on, each from those before it."
    )
    merge: Literal["score", "quota"] = Field(
        "score",
        description="score: the best items over all interests; quota: each interest fills the "
        "share of the list that it has in the history.",
    )

    search_space: ClassVar = {
        **ObjectiveConfig.search_space,
        "extractor.interests": {"choices": [2, 4, 8]},
        "dropout": {"low": 0.0, "high": 0.5},
    }


class MultiInterest(TrainedRetriever):
    """Item vectors are the input embeddings; an extractor turns a history into interests."""

    Config = MultiInterestConfig
    config: MultiInterestConfig

    def __init__(
        self,
        config: MultiInterestConfig,
        embeddings: EmbeddingsConfig,
        examples: Examples,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.merge = MERGES[config.merge]
        self.seed = seed
        self.item = examples.schema.item
        self.inputs = (History(self.item, config.max_length),)
        layout = make_layout([examples.spec(self.item)], config.width, embeddings)
        layout.require(self.item, config.width)
        self.embeddings = Embeddings(layout, seed)
        self.extractor = config.extractor.make(config.width, config.max_length)
        self.drop = Dropout(config.dropout)
        longest, count = config.max_length + 1, config.targets_per_user
        targets = partial(targets_of_sequences, examples, longest, count)
        self.objective = Objective(config, examples, seed, targets)

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """Vectors [B, K, D] of the interests in the history [B, T]; an interest's weight is its
        share of the history where lists are merged by quota, and 1 where they are not."""
        history = inputs[HISTORY]
        positions, mask = newest_first((history != 0).sum(1), history.shape[1])
        rows = history.gather(1, positions).masked_fill(~mask, 0)
        events = self.objective.unit(self.embeddings({self.item: rows})[self.item])
        vectors, present = self.interests(events, mask)
        weights = present.to(vectors.dtype)
        if self.merge.by_weight:
            weights = shares(nearest(vectors, present, events), mask, weights)
        return Queries(vectors, weights)

    def interests(self, events: Tensor, mask: Tensor) -> Interests:
        """Vectors as they are compared [B, K, D] from events as they are compared [B, T, D]."""
        vectors, present = self.extractor(self.drop(events), mask)
        return Interests(self.objective.unit(vectors), present)

    def embed_items(self, rows: Tensor) -> Tensor:
        """Item vectors [n, D]."""
        return self.objective.unit(self.embeddings({self.item: rows})[self.item])

    def forward(self, batch: Batch, step: int) -> Loss:
        """The loss of `targets_per_user` events of each history, drawn anew at every step."""
        history = batch.padded(HISTORY, self.config.max_length + 1)
        users, ends = draw_targets(
            history,
            self.config.targets_per_user,
            longest=self.config.max_length + 1,
            seed=self.seed,
            step=step,
        )
        targets = history[users, ends]
        drawn = self.objective.draw(targets, step, lambda: self._hardest(history))
        rows = torch.cat([history.flatten(), drawn.ids])
        vectors = self.embeddings({self.item: rows})[self.item]
        events, negatives = vectors[: history.numel()], vectors[history.numel() :]
        positions, mask = newest_first(ends, max(1, history.shape[1] - 1))
        starts = users * history.shape[1]
        read = F.embedding(
            starts.unsqueeze(1) + positions, self.objective.unit(events)
        )  # [P, T, D]
        positives = events[starts + ends]
        interests = self.interests(read, mask)
        queries = self.config.extractor.choose(
            interests, self.objective.unit(positives), self.config.temperature
        )
        losses = self.objective(queries, positives, negatives, targets, drawn)
        return Loss(losses.sum(), losses.new_tensor(len(losses)))

    def _hardest(self, history: Tensor) -> Tensor:
        """Item rows that score best after each user's last event but one."""
        lengths = (history != 0).sum(1, keepdim=True) - 1
        columns = torch.arange(history.shape[1], device=history.device)
        read = history.masked_fill(columns >= lengths, 0)[:, : self.config.max_length]
        rows = self.objective.sampler.everything()
        with answering(self):
            vectors, weights = self.encode({HISTORY: read})
            vectors = torch.where(weights.unsqueeze(2) > 0, vectors, vectors[:, :1])
            return self.objective.hardest(vectors, history, self.item_matrix(rows), rows)


def shares(closest: Tensor, mask: Tensor, present: Tensor) -> Tensor:
    """Share [B, K] of the events [B, T] that are closest to each interest; equal shares of those
    that are `present` [B, K] where there is no event."""
    interests = torch.arange(present.shape[1], device=closest.device)
    hits = (closest.unsqueeze(2) == interests) & mask.unsqueeze(2)
    counts = hits.sum(1).to(present.dtype)
    counts = torch.where(mask.any(1, keepdim=True), counts, present)
    return counts / counts.sum(1, keepdim=True)
