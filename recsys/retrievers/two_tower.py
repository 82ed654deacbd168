"""Two towers: features of the user and of the item, each to a vector of the same space."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from feature_store.columns import HISTORY, TARGET
from feature_store.examples import RowsOf
from feature_store.schema import Feature
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.data.item_features import FeatureValues, ItemColumns, choose, input_of
from recsys.embeddings.layout import Layout, make_layout
from recsys.embeddings.options import EmbeddingsConfig
from recsys.embeddings.plain import masked_mean
from recsys.embeddings.tables import Embeddings
from recsys.inputs import History
from recsys.layers.frozen_vectors import FrozenVectors
from recsys.layers.standardise import Standardise
from recsys.model import Columns, Loss, answering
from recsys.objectives.objective import Objective, ObjectiveConfig
from recsys.objectives.targets import targets_of_events
from recsys.options import ModelConfig
from recsys.retrievers.base import Queries, single_interest
from recsys.retrievers.hidden_ids import HiddenIds
from recsys.retrievers.item_texts import TextVectorsConfig
from recsys.retrievers.trained import TrainedRetriever
from recsys.text.tfidf import WordSpace

TEXTS = "texts of items"
"""What columns of weights are called that read them."""


class TwoTowerConfig(ObjectiveConfig):
    """Yi et al., "Sampling-bias-corrected neural modeling", RecSys 2019; `id_dropout` is from
    Volkovs et al., "DropoutNet: addressing cold start in recommender systems", NeurIPS 2017."""

    name: Literal["two_tower"] = "two_tower"
    hidden: tuple[int, ...] = Field((128,), description="Hidden layers of each tower.")
    user_features: tuple[str, ...] = Field(
        (), description="Features of the user's side; empty takes all but the user's id."
    )
    item_features: tuple[str, ...] = Field((), description="Features of the item; empty takes all.")
    max_length: int = Field(50, ge=1, description="Events of the history that are averaged.")
    negative_sampling: Literal["uniform", "popularity", "mixed", "in_batch"] = Field(
        "in_batch", description="Where from; in_batch takes the targets of the whole batch."
    )
    log_q: bool = Field(True, description="Correct the logits for how often items are drawn.")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of numbers that a training step hides."
    )
    id_dropout: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the items of a step whose ids are hidden: the other features alone "
        "learn to place them, as they must where an item is new.",
    )

    text: TextVectorsConfig | None = Field(
        None,
        description="Read the texts of items, too: the item's, and the mean of the history's.",
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "width": {"choices": [32, 64, 128]},
        "temperature": {"low": 0.02, "high": 0.2, "log": True},
        "negative_sampling": {"choices": ["in_batch", "mixed"]},
        "hidden": {"choices": [[], [128], [256, 128]]},
        "dropout": {"low": 0.0, "high": 0.5},
        "id_dropout": {"low": 0.0, "high": 0.9},
    }


class TwoTower(TrainedRetriever):
    """User: features and the mean of the history's item ids. Item: all its features. Numbers are
    standardised.

    The history shares the item ids' table. Trained by default with in-batch negatives. An item
    without training events has an id that nothing was learned about: it has the unknown one's row.
    Texts are frozen vectors, beside the features of the item and beside the mean of the history.
    """

    rows_of = RowsOf(per="event")
    Config = TwoTowerConfig
    config: TwoTowerConfig

    def __init__(
        self,
        config: TwoTowerConfig,
        embeddings: EmbeddingsConfig,
        examples: Examples,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.seed = seed
        schema = examples.schema
        self.item = schema.item
        option = "retriever.user_features"
        self.user_features = choose(
            config.user_features, examples, "user", option=option, without=[schema.user]
        )
        self.item_features = choose(
            config.item_features, examples, "item", option="retriever.item_features"
        )
        self.inputs = (
            History(self.item, config.max_length),
            *(input_of(feature) for feature in self.user_features),
        )
        embedded = [f.name for f in (*self.user_features, *self.item_features) if f.embedded]
        specs = [examples.spec(name) for name in dict.fromkeys([self.item, *embedded])]
        layout = make_layout(specs, config.width, embeddings)
        self.embeddings = Embeddings(layout, seed)
        self.items = ItemColumns(self.item_features, examples)
        numbers = [f for f in (*self.user_features, *self.item_features) if f.kind == "dense"]
        self.numbers = Standardise({f.name: examples.training_column(f) for f in numbers})
        self.own = {
            f.name: tuple(f"numbers.{constant}" for constant in self.numbers.names(f.name))
            for f in numbers
        }
        self.hidden = HiddenIds(examples.train_events, config.id_dropout, seed)
        user = {HISTORY: layout.width(self.item), **_widths(self.user_features, layout)}
        item = _widths(self.item_features, layout)
        if config.text is not None:
            self.texts = FrozenVectors(config.text.of(examples))
            user[TEXTS] = item[TEXTS] = self.texts.width
        self.columns = {
            "user_tower.0.weight": Columns((1,), user),
            "item_tower.0.weight": Columns((1,), item),
        }
        self.user_tower = _tower(sum(user.values()), config)
        self.item_tower = _tower(sum(item.values()), config)
        targets = partial(targets_of_events, examples)
        self.objective = Objective(config, examples, seed, targets)

    @classmethod
    def rows_for(cls, config: ModelConfig) -> RowsOf:
        """With the texts of items where they are read."""
        return replace(cls.rows_of, texts=getattr(config, "text", None) is not None)

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """User vectors [B, 1, D]."""
        user = FeatureValues.of(self.user_features, inputs)
        vectors = self.embeddings({self.item: inputs[HISTORY], **user.ids}, user.bags)
        return single_interest(self.objective.unit(self._user(inputs, vectors)))

    def embed_items(self, rows: Tensor) -> Tensor:
        """Item vectors [n, D]."""
        ids, bags, numbers = self._features(rows, self.hidden(rows))
        return self.objective.unit(self._item(rows, self.embeddings(ids, bags), numbers))

    def word_space(self, examples: Examples) -> WordSpace | None:
        """Where it reads texts by TF-IDF."""
        return None if self.config.text is None else self.config.text.words(examples)

    def described(self, rows: Tensor, vectors: Tensor) -> Tensor:
        """Item vectors [n, D] of other texts."""
        ids, bags, numbers = self._features(rows, self.hidden(rows))
        return self.objective.unit(self._item(rows, self.embeddings(ids, bags), numbers, vectors))

    def forward(self, batch: Batch, step: int) -> Loss:
        """The loss of each row's target.

        Targets of all processes are gathered and embedded by each, so that the loss is that of
        the whole batch whatever the number of processes.
        """
        inputs = self.inputs_of(batch)
        targets = batch.id(TARGET)
        drawn = self.objective.draw(targets, step, lambda: self._hardest(inputs, targets))
        items, inverse = torch.unique(torch.cat([targets, drawn.ids]), return_inverse=True)
        history = inputs[HISTORY]
        ids, bags, numbers = self._features(items, self.hidden(items, step))
        item_ids = ids.get(self.item, items.new_empty(0))
        ids[self.item] = torch.cat([item_ids, history.flatten()])
        user = FeatureValues.of(self.user_features, inputs)
        vectors = self.embeddings({**ids, **user.ids}, {**bags, **user.bags})
        both = vectors[self.item]
        users = self._user(
            inputs, {**vectors, self.item: both[len(item_ids) :].view(*history.shape, -1)}
        )
        vectors[self.item] = both[: len(item_ids)]
        rows = self._item(items, vectors, numbers)[inverse]
        positives, negatives = rows[: len(targets)], rows[len(targets) :]
        losses = self.objective(users, positives, negatives, targets, drawn)
        return Loss(losses.sum(), losses.new_tensor(len(losses)))

    def _hardest(self, inputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        rows = self.objective.sampler.everything()
        seen = torch.cat([inputs[HISTORY], targets.unsqueeze(1)], dim=1)
        with answering(self):
            users = self.encode(inputs).vectors
            return self.objective.hardest(users, seen, self.item_matrix(rows), rows)

    def _features(self, rows: Tensor, hidden: Tensor) -> FeatureValues:
        """As `ItemColumns`, with the id of `hidden` [n] items unknown."""
        values: FeatureValues = self.items(rows)
        if self.item in values.ids:
            values.ids[self.item] = values.ids[self.item].masked_fill(hidden, 0)
        return values

    def _user(self, inputs: dict[str, Tensor], vectors: dict[str, Tensor]) -> Tensor:
        events = inputs[HISTORY]
        history = masked_mean(vectors[self.item], events != 0)
        columns = [
            vectors[f.name] if f.embedded else self.numbers(f.name, inputs[f.name]).unsqueeze(1)
            for f in self.user_features
        ]
        if self.config.text is not None:
            columns.append(self.texts.means(events))
        return self.user_tower(torch.cat([history, *columns], dim=1))

    def _item(
        self,
        rows: Tensor,
        vectors: dict[str, Tensor],
        numbers: dict[str, Tensor],
        texts: Tensor | None = None,
    ) -> Tensor:
        columns = [
            vectors[f.name] if f.embedded else self.numbers(f.name, numbers[f.name]).unsqueeze(1)
            for f in self.item_features
        ]
        if self.config.text is not None:
            columns.append(self.texts(rows) if texts is None else texts)
        return self.item_tower(torch.cat(columns, dim=1))


def _widths(features: tuple[Feature, ...], layout: Layout) -> dict[str, int]:
    return {f.name: layout.width(f.name) if f.embedded else 1 for f in features}


def _tower(width: int, config: TwoTowerConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for hidden in config.hidden:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(config.dropout)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, config.width))
