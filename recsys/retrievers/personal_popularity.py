"""Personal popularity: what a user has had most often, then what everybody has, for logs in which
people buy again."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from feature_store.columns import HISTORY
from recsys.data.examples import Examples, Interactions
from recsys.inputs import History
from recsys.options import ModelConfig
from recsys.retrievers.base import Queries, single_interest
from recsys.retrievers.fitted import ScoringRetriever


class PersonalPopularityConfig(ModelConfig):
    """Items by how often the user has had them, then by how often everybody has: GP-TopFreq of Li,
    Jullien, Ariannezhad & de Rijke, "A next basket recommendation reality check", TOIS 2023."""

    name: Literal["personal_popularity"] = "personal_popularity"


class PersonalPopularity(ScoringRetriever):
    """An item's score is its count in the history, and a share below 1 of the most popular item's
    training events, which decides among equals and fills the list."""

    Config: ClassVar[type[ModelConfig]] = PersonalPopularityConfig
    needs_history = False
    popularity: Tensor

    def __init__(self, config: ModelConfig, examples: Examples, seed: int = 0) -> None:
        super().__init__(config, examples, seed)
        self.inputs = (History(examples.schema.item),)
        self.register_buffer("popularity", torch.zeros(self.items))

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Count events."""
        events = torch.bincount(interactions.items, minlength=self.items).float()
        self.popularity = events / (1 + events.max())

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """Scores [B, 1, N]; how often an item was had is what matters."""
        history = inputs[HISTORY]
        counts = torch.zeros(history.shape[0], self.items, device=history.device)
        counts = counts.scatter_add(1, history, torch.ones_like(history, dtype=counts.dtype))
        return single_interest(self.score(counts))

    def score(self, histories: Tensor) -> Tensor:
        """Scores [B, N] from counts [B, N]."""
        return histories + self.popularity
