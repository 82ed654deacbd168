"""Pooling: averaged histories beside the other features, the baseline of whatever attends."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from feature_store.columns import LAST_PLACE, LIST_PLACE
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.embeddings.options import EmbeddingsConfig
from recsys.layers.deep import Activation
from recsys.layers.place_features import PLACE_FEATURES, PlaceFeatures
from recsys.layers.repeats import REPEATS
from recsys.rankers.base import State
from recsys.rankers.features import (
    REQUEST,
    FeatureOptions,
    FeatureRanker,
    RepeatsOptions,
    item_rows_of,
    vectors_of,
)
from recsys.rankers.top import TopOptions, columns_of_top, top_network


class InterestOptions(TopOptions, RepeatsOptions):
    """Options of rankers that make one vector of a history, and a deep network of all."""

    activation: Activation = Field(
        "relu", description="Between layers; dice adapts to the distribution of its inputs."
    )
    mixed_places: bool = Field(
        False,
        description="With position: the network reads places, too, which then count otherwise for "
        "other items and requests. Scores are of items at the mean place.",
    )

    @model_validator(mode="after")
    def _places_are_learned(self) -> Self:
        if self.mixed_places and not self.position:
            raise ValueError("mixed_places learns from places, too: set position = true")
        return self


class PoolingConfig(InterestOptions):
    """The base model of Zhou et al., "Deep interest network", KDD 2018."""

    name: Literal["pooling"] = "pooling"


_PLACES = "places"  # in a state: numbers of where items stand [B, M, PLACE_FEATURES]


class Pooling(FeatureRanker):
    """A deep network over the request, the item, and the mean of every history."""

    Config: ClassVar[type[FeatureOptions]] = PoolingConfig

    def __init__(
        self,
        config: InterestOptions,
        embeddings: EmbeddingsConfig,
        examples: Examples,
        seed: int = 0,
    ) -> None:
        super().__init__(config, embeddings, examples, seed)
        self.repeats = config.repeats
        widths = {**self.request_widths, **self.item_widths}
        for history in self.histories:
            widths |= {f"{history.name}.{name}": w for name, w in self.item_widths.items()}
            if self.repeats:
                widths[f"{history.name}.repeats"] = REPEATS
        self.place_features: PlaceFeatures | None = None
        if config.mixed_places:
            places = (examples.training_ids(name) for name in (LIST_PLACE, LAST_PLACE))
            self.place_features = PlaceFeatures(*places)
            widths[_PLACES] = PLACE_FEATURES
        self.deep = top_network(sum(widths.values()), config, len(self.tasks), config.activation)
        self.columns = columns_of_top("deep", config, widths)

    def interest(self, history: str, items: Tensor, keys: Tensor, kept: Tensor) -> Tensor:
        """What a history says of items [B, M, I]: its vectors are keys [B, L, I], of which some
        are `kept` [B, L]."""
        mean = keys.sum(1) / kept.sum(1, keepdim=True).clamp(min=1)
        return mean.unsqueeze(1).expand(-1, items.shape[1], -1)

    def known_places(self, batch: Batch) -> State:
        """Where the items of a batch stood, for the network."""
        if self.place_features is None:
            return {}
        told = self.place_features(batch.id(LIST_PLACE), batch.id(LAST_PLACE))
        return {_PLACES: told.unsqueeze(1)}

    def digest(self, state: State) -> State:
        """All of it and, for repeats, how new the items of each history are."""
        return self.with_ranks(state) if self.repeats else state

    def rate(self, state: State, items: Tensor) -> Tensor:
        """Logits [B, M, tasks]."""
        parts = [state[REQUEST].unsqueeze(1).expand(-1, items.shape[1], -1), items]
        for history in self.histories:
            keys, kept = state[vectors_of(history.name)], state[item_rows_of(history.name)] != 0
            parts.append(self.interest(history.name, items, keys, kept))
            if self.repeats:
                parts.append(self.repeats_in(history.name, state))
        if self.place_features is not None:
            shape = (*items.shape[:2], PLACE_FEATURES)
            parts.append(state[_PLACES] if _PLACES in state else items.new_zeros(shape))
        logits = self.deep(torch.cat(parts, dim=2).flatten(0, 1))
        return logits.unflatten(0, items.shape[:2])
