"""DCN-V2: cross layers over all features, then a deep network."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from feature_store.schema import Feature
from recsys.data.examples import Examples
from recsys.data.item_features import FeatureValues, ItemColumns, choose, input_of
from recsys.embeddings.layout import make_layout
from recsys.embeddings.options import EmbeddingsConfig
from recsys.embeddings.tables import Embeddings
from recsys.layers.cross import CrossLayers
from recsys.layers.standardise import Standardise
from recsys.model import Columns
from recsys.options import ModelConfig
from recsys.rankers.base import Ranker, State


class DCNConfig(ModelConfig):
    """Wang et al., "DCN V2: improved deep & cross network", WWW 2021, stacked."""

    name: Literal["dcn"] = "dcn"
    width: int = Field(16, ge=1, description="D: width of embeddings, where no table has its own.")
    cross_layers: int = Field(2, ge=0, description="Cross layers, one on the other.")
    hidden: tuple[int, ...] = Field((128,), description="Hidden layers of the deep network.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of numbers that a training step hides."
    )
    user_features: tuple[str, ...] = Field((), description="Of the user; empty takes all.")
    item_features: tuple[str, ...] = Field((), description="Of the item; empty takes all.")
    context_features: tuple[str, ...] = Field(
        (), description="Of the event; empty takes all but those that tell how it ended."
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "width": {"choices": [8, 16, 32]},
        "cross_layers": {"low": 1, "high": 3},
        "hidden": {"choices": [[128], [256, 128], [512, 256]]},
        "dropout": {"low": 0.0, "high": 0.5},
    }


class DCN(Ranker):
    """Reads features of the user, the item and the event; numbers are standardised."""

    Config = DCNConfig

    def __init__(
        self, config: DCNConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
    ) -> None:
        super().__init__()
        schema = examples.schema
        users = choose(config.user_features, examples, "user", option="ranker.user_features")
        items = choose(config.item_features, examples, "item", option="ranker.item_features")
        # what is known only once the event has happened must not be asked before it
        outcome = (schema.label, schema.quantity, schema.event_type, schema.propensity)
        context = choose(
            config.context_features,
            examples,
            "context",
            option="ranker.context_features",
            without=outcome,
        )
        self.item = schema.item
        self.asked = (*users, *context)
        self.inputs = tuple(input_of(feature) for feature in self.asked)
        features = (*self.asked, *items)
        embedded = [examples.spec(f.name) for f in features if f.embedded]
        layout = make_layout(embedded, config.width, embeddings)
        self.embeddings = Embeddings(layout, seed)
        self.items = ItemColumns(items, examples)
        self.numbers = Standardise(
            {f.name: examples.training_column(f) for f in features if f.kind == "dense"}
        )
        numbers = [f.name for f in features if f.kind == "dense"]
        self.own = {
            feature: tuple(f"numbers.{constant}" for constant in self.numbers.names(feature))
            for feature in numbers
        }
        widths = {f.name: layout.width(f.name) if f.embedded else 1 for f in features}
        width = sum(widths.values())
        self.cross = CrossLayers(width, config.cross_layers)
        layers: list[nn.Module] = []
        for hidden in config.hidden:
            layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
            width = hidden
        self.deep = nn.Sequential(*layers, nn.Linear(width, len(self.tasks)))
        self.columns = {"deep.0.weight": Columns((1,), widths)}
        for layer in range(config.cross_layers):
            self.columns[f"cross.layers.{layer}.weight"] = Columns((0, 1), widths)
            self.columns[f"cross.layers.{layer}.bias"] = Columns((0,), widths)

    def encode(self, inputs: dict[str, Tensor]) -> State:
        """The features of the user and the event, side by side."""
        asked = FeatureValues.of(self.asked, inputs)
        vectors = self.embeddings(asked.ids, asked.bags)
        return {"request": self._joined(self.asked, vectors, asked.numbers)}

    def score(self, state: State, items: Tensor) -> Tensor:
        """Logits [B, M, 1]."""
        values = self.items(items.flatten())
        vectors = self.embeddings(values.ids, values.bags)
        joined = self._joined(self.items.features, vectors, values.numbers)
        return self._crossed(state["request"], joined.unflatten(0, items.shape))

    def logits(self, inputs: dict[str, Tensor], items: Tensor) -> Tensor:
        """Logits [B, M, 1]."""
        asked, values = FeatureValues.of(self.asked, inputs), self.items(items.flatten())
        vectors = self.embeddings({**asked.ids, **values.ids}, {**asked.bags, **values.bags})
        request = self._joined(self.asked, vectors, asked.numbers)
        joined = self._joined(self.items.features, vectors, values.numbers)
        return self._crossed(request, joined.unflatten(0, items.shape))

    def _joined(
        self,
        features: tuple[Feature, ...],
        vectors: dict[str, Tensor],
        numbers: dict[str, Tensor],
    ) -> Tensor:
        """Vectors and standardised numbers of features, side by side [n, D]."""
        columns = [
            vectors[f.name] if f.embedded else self.numbers(f.name, numbers[f.name]).unsqueeze(1)
            for f in features
        ]
        return torch.cat(columns, dim=1)

    def _crossed(self, request: Tensor, items: Tensor) -> Tensor:
        """Logits [B, M, 1] of what is known of requests [B, R] and their items [B, M, I]."""
        both = torch.cat([request.unsqueeze(1).expand(-1, items.shape[1], -1), items], dim=2)
        logits = self.deep(self.cross(both.flatten(0, 1)))
        return logits.unflatten(0, items.shape[:2])
