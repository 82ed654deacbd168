"""Popularity, and popularity of the last days: the baselines that every table holds."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from feature_store.columns import HISTORY
from feature_store.errors import DataError
from recsys.data.examples import Examples, Interactions
from recsys.inputs import History
from recsys.options import ModelConfig
from recsys.retrievers.base import Queries, single_interest
from recsys.retrievers.fitted import FittedRetriever


class PopularityConfig(ModelConfig):
    """Items by their number of training events."""

    name: Literal["popularity"] = "popularity"


class RecentPopularityConfig(ModelConfig):
    """Items by their number of training events in the last days."""

    name: Literal["recent_popularity"] = "recent_popularity"
    days: float = Field(30, gt=0, description="Days before the last training event.")

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "days": {"low": 1.0, "high": 365.0, "log": True}
    }


def lately_of(interactions: Interactions, days: float) -> Tensor:
    """Which events [E] are of the last days before the last one."""
    return interactions.times >= interactions.times.max() - days * 86_400


class Popularity(FittedRetriever):
    """The same list for everyone: user vector [1], item vector [events of the item]."""

    Config: ClassVar[type[ModelConfig]] = PopularityConfig
    needs_history = False
    events: Tensor

    def __init__(self, config: ModelConfig, examples: Examples, seed: int = 0) -> None:
        super().__init__(config, examples, seed)
        self.inputs = (History(examples.schema.item, 2),)
        self.register_buffer("events", torch.zeros(self.items))

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Count events."""
        self.events = torch.bincount(interactions.items, minlength=self.items).float()

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """One for everyone."""
        history = inputs[HISTORY]
        return single_interest((history[:, :1] * 0 + 1).to(self.events.dtype))

    def embed_items(self, rows: Tensor) -> Tensor:
        """The counts [n, 1]."""
        return self.events[rows].unsqueeze(1)


class RecentPopularity(Popularity):
    """Popularity in the last days."""

    Config = RecentPopularityConfig
    config: RecentPopularityConfig

    def fit(self, interactions: Interactions, examples: Examples) -> None:
        """Count the events of the last days. Raises DataError when the log has no times."""
        if examples.schema.clock != "time":
            raise DataError("recent_popularity needs times; this log has none: leave it out")
        recent = interactions.items[lately_of(interactions, self.config.days)]
        self.events = torch.bincount(recent, minlength=self.items).float()
