"""Two towers: features of the user and of the item, each to a vector of the same space."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from feature_store.errors import ConfigError
from feature_store.examples import HISTORY, TARGET
from feature_store.schema import Feature
from recsys.batch import Batch
from recsys.embeddings.layout import EmbeddingsConfig, make_layout
from recsys.embeddings.plain import masked_mean
from recsys.embeddings.tables import Embeddings
from recsys.examples import Examples
from recsys.inputs import Input
from recsys.losses import in_batch_softmax
from recsys.retrievers.base import Loss, Queries, RetrieverConfig, TrainedRetriever, single_interest
from recsys.training.distributed import current_group


class TwoTowerConfig(RetrieverConfig):
    """Yi et al., "Sampling-bias-corrected neural modeling", RecSys 2019."""

    name: Literal["two_tower"] = "two_tower"
    width: int = Field(64, ge=2, description="D: width of embeddings and of both vectors.")
    hidden: tuple[int, ...] = Field((128,), description="Hidden layers of each tower.")
    user_features: tuple[str, ...] = Field(
        (), description="Features of the user's side; empty takes all but the user's id."
    )
    item_features: tuple[str, ...] = Field((), description="Features of the item; empty takes all.")
    max_length: int = Field(50, ge=1, description="Events of the history that are averaged.")
    temperature: float = Field(0.05, gt=0)
    log_q: bool = Field(True, description="Correct for how often items are in a batch.")
    dropout: float = Field(0.1, ge=0, lt=1)

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "width": {"choices": [32, 64, 128]},
        "hidden": {"choices": [[], [128], [256, 128]]},
        "temperature": {"low": 0.02, "high": 0.2, "log": True},
        "dropout": {"low": 0.0, "high": 0.5},
    }


class TwoTower(TrainedRetriever):
    """User: features and the mean of the history's item ids. Item: all its features.

    The history shares the item ids' table. Trained with in-batch negatives.
    """

    shape = "events"
    probability: Tensor

    def __init__(
        self,
        config: TwoTowerConfig,
        embeddings: EmbeddingsConfig,
        examples: Examples,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        schema = examples.schema
        self.item = schema.item
        self.user_features = _choose(
            config.user_features,
            examples,
            "user",
            [f.name for f in schema.of_side("user") if f.name != schema.user],
        )
        self.item_features = _choose(
            config.item_features, examples, "item", [f.name for f in schema.of_side("item")]
        )
        self.inputs = (
            Input(HISTORY, "sequence", config.max_length),
            *(_input(feature) for feature in self.user_features),
        )
        embedded = [f.name for f in (*self.user_features, *self.item_features) if f.embedded]
        specs = [examples.spec(name) for name in dict.fromkeys([self.item, *embedded])]
        self.embeddings = Embeddings(make_layout(specs, config.width, embeddings))
        for feature in self.item_features:
            self.register_buffer(
                f"item_{feature.name}", examples.item_column(feature), persistent=False
            )
        self.user_tower = _tower(self.user_features, config, extra=config.width)
        self.item_tower = _tower(self.item_features, config)
        events = examples.train_events.double()
        self.register_buffer("probability", events / events.sum(), persistent=False)

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """User vectors [B, 1, D]."""
        ids = {self.item: inputs[HISTORY]}
        bags = {}
        for feature in self.user_features:
            if feature.kind == "bag":
                bags[feature.name] = inputs[feature.name]
            elif feature.kind == "id":
                ids[feature.name] = inputs[feature.name]
        return single_interest(self._user(inputs, self.embeddings(ids, bags)))

    def embed_items(self, rows: Tensor) -> Tensor:
        """Item vectors [n, D]."""
        ids, bags = self._item_ids(rows)
        return self._item(rows, self.embeddings(ids, bags))

    def forward(self, batch: Batch, step: int) -> Loss:
        """Softmax of each row's target over the distinct targets of the whole batch.

        Targets of all processes are gathered and embedded by each, so that the loss is that of
        the whole batch whatever the number of processes.
        """
        inputs = self.inputs_of(batch)
        group = current_group()
        targets = batch.id(TARGET).contiguous()
        everywhere = group.concat(targets)
        items = torch.unique(everywhere)
        labels = torch.searchsorted(items, targets)
        history = inputs[HISTORY]
        ids, bags = self._item_ids(items)
        own = ids.get(self.item, items.new_empty(0))
        ids[self.item] = torch.cat([own, history.flatten()])
        user_ids = {f.name: inputs[f.name] for f in self.user_features if f.kind == "id"}
        user_bags = {f.name: inputs[f.name] for f in self.user_features if f.kind == "bag"}
        vectors = self.embeddings({**ids, **user_ids}, {**bags, **user_bags})
        both = vectors[self.item]
        users = self._user(
            inputs, {**vectors, self.item: both[len(own) :].view(*history.shape, -1)}
        )
        item_vectors = self._item(items, {**vectors, self.item: both[: len(own)]})
        log_q = None
        if self.config.log_q:
            chance = -torch.expm1(len(everywhere) * torch.log1p(-self.probability[items]))
            log_q = chance.clamp(min=1e-12).log().to(users.dtype)
        losses = in_batch_softmax(users / self.config.temperature, item_vectors, labels, log_q)
        return Loss(losses.sum(), losses.new_tensor(len(losses)))

    def _item_ids(self, rows: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        column = lambda f: getattr(self, f"item_{f.name}")[rows]  # noqa: E731
        ids = {f.name: column(f) for f in self.item_features if f.kind == "id"}
        return ids, {f.name: column(f) for f in self.item_features if f.kind == "bag"}

    def _user(self, inputs: dict[str, Tensor], vectors: dict[str, Tensor]) -> Tensor:
        history = masked_mean(vectors[self.item], inputs[HISTORY] != 0)
        parts = [
            vectors[f.name] if f.embedded else inputs[f.name].unsqueeze(1)
            for f in self.user_features
        ]
        return F.normalize(self.user_tower(torch.cat([history, *parts], dim=1)), dim=-1)

    def _item(self, rows: Tensor, vectors: dict[str, Tensor]) -> Tensor:
        parts = [
            vectors[f.name] if f.embedded else getattr(self, f"item_{f.name}")[rows].unsqueeze(1)
            for f in self.item_features
        ]
        return F.normalize(self.item_tower(torch.cat(parts, dim=1)), dim=-1)


def _choose(
    names: tuple[str, ...], examples: Examples, side: str, default: list[str]
) -> tuple[Feature, ...]:
    usable = [
        f for f in examples.schema.features if f.side == side and f.kind in ("id", "bag", "dense")
    ]
    known = {f.name: f for f in usable}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ConfigError(
            f"retriever.{side}_features names {', '.join(unknown)}; the log has: {', '.join(known)}"
        )
    return tuple(known[name] for name in (names or default) if name in known)


def _input(feature: Feature) -> Input:
    kinds = {"id": "id", "bag": "bag", "dense": "dense"}
    return Input(feature.name, kinds[feature.kind], 64 if feature.kind == "bag" else None)  # type: ignore[arg-type]


def _tower(features: tuple[Feature, ...], config: TwoTowerConfig, extra: int = 0) -> nn.Sequential:
    width = extra + sum(config.width if f.embedded else 1 for f in features)
    layers: list[nn.Module] = []
    for hidden in config.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, config.width))
