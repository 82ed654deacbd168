"""SESA: request and item meet in concepts that have names, so that a score says its reasons."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from feature_store.errors import ConfigError
from feature_store.schema import Feature
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.data.item_features import usable_features
from recsys.embeddings.options import EmbeddingsConfig
from recsys.layers.deep import deep_network
from recsys.model import Columns, Loss
from recsys.rankers.base import Explanation, State
from recsys.rankers.features import REQUEST, FeatureOptions, FeatureRanker

# in a state: of requests in concepts, and what speaks for any item
INTERESTS, LEANING = "interests", "leaning"


class SESAConfig(FeatureOptions):
    """After Bogdanova & Yazdani, "SESA: supervised explicit semantic analysis", 2017."""

    name: Literal["sesa"] = "sesa"
    concepts: str = Field(
        "",
        description="The feature of items whose ids name the concepts; empty takes the first bag, "
        "or else the first id beside the item's.",
    )
    beta: float = Field(
        0.1, ge=0, description="Weight of the loss that holds concepts to what items are labelled."
    )
    bottleneck: bool = Field(
        True,
        description="Without it the same network is free of names and signs, to compare with.",
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        **FeatureOptions.search_space,
        "beta": {"low": 0.01, "high": 1.0, "log": True},
    }


class SESA(FeatureRanker):
    """A logit is a bias and, of K concepts, weight x interest of the request x share of the item.

    Interests and shares are at least 0; the weights are free, so that a concept can speak against
    an item. The bias is the model's, the request's and the item's: how much a user likes anything,
    how much anybody likes the item, and what concepts cannot say of items that have none.
    Shares are learned from the items' labels, too; those of items without any label are free.
    """

    Config = SESAConfig

    def __init__(
        self, config: SESAConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
    ) -> None:
        super().__init__(config, embeddings, examples, seed)
        if len(self.tasks) > 1:
            raise ConfigError("sesa learns the first label alone: leave labels.tasks out")
        feature = _naming(config.concepts, examples)
        names = tuple(str(name) for name in examples.vocabulary(feature.name).values.to_pylist())
        if not names:
            raise ConfigError(f"ranker.concepts = {feature.name!r}: no item has a value of it")
        self.beta, self.bottleneck, k = config.beta, config.bottleneck, len(names)
        self.concepts = names if config.bottleneck else ()
        # of each, the last number is its bias
        hidden, dropout = config.hidden, config.dropout
        self.request_tower = deep_network(self.request_width, hidden, k + 1, dropout=dropout)
        self.item_tower = deep_network(self.item_width, hidden, k + 1, dropout=dropout)
        self.columns = {
            "request_tower.0.weight": Columns((1,), self.request_widths),
            "item_tower.0.weight": Columns((1,), self.item_widths),
        }
        labels = examples.item_column(feature)
        self.register_buffer("item_labels", labels.reshape(len(labels), -1), persistent=False)
        # concepts begin by speaking for items, each about alike; of a fresh model all of them,
        # softplus(0) twice, come to about minus the bias
        weight, each = k**-0.5, math.log(2) ** 2
        self.weights = nn.Parameter(torch.full((k,), weight))
        self.bias = nn.Parameter(torch.tensor(-k * weight * each if config.bottleneck else 0.0))

    def digest(self, state: State) -> State:
        """INTERESTS [B, K], weighted, and LEANING [B, 1]."""
        interests, leaning = self._parted(self.request_tower(state[REQUEST]))
        return {INTERESTS: self.weights * self._activated(interests), LEANING: leaning}

    def rate(self, state: State, items: Tensor) -> Tensor:
        """Logits [B, M, 1]."""
        return self._summed(self._explained(state, self.item_tower(items)))

    def explain(self, inputs: dict[str, Tensor], items: Tensor) -> Explanation:
        """What `concepts` contribute to the logits of item rows [B, M]. Their sum and the bias,
        which is the model's, the request's and the item's, are what `score` rounds to float32, by a
        part in 2**24 at most.

        Raises ConfigError for a network without the bottleneck.
        """
        if not self.bottleneck:
            return super().explain(inputs, items)
        state, vectors = self._looked_up(inputs, items)
        assert vectors is not None
        return self._explained(self.digest(state), self.item_tower(vectors))

    def forward(self, batch: Batch, step: int) -> Loss:
        """Binary cross-entropy of the label and, by beta, of the item's concepts, a mean of K."""
        rows = batch.id(self.item)
        state, vectors = self._looked_up(self.inputs_of(batch), rows.unsqueeze(1))
        assert vectors is not None
        described = self.item_tower(vectors)
        logits = self._summed(self._explained(self.digest(state), described)).squeeze(1)
        total, weight = self.loss_of(logits, batch)
        if self.bottleneck and self.beta:
            targets = self.labelled(rows)
            shares, _ = self._parted(described.squeeze(1).float())
            losses = F.binary_cross_entropy_with_logits(shares, targets, reduction="none")
            total = total + self.beta * (losses.mean(1) * targets.amax(1)).sum()
        return Loss(total, weight)

    def labelled(self, rows: Tensor) -> Tensor:
        """Of which concepts item rows [n] are labelled, 0 or 1 [n, K]."""
        ids: Tensor = self.item_labels[rows]  # type: ignore[index, assignment]
        marks = torch.zeros(len(rows), len(self.weights) + 1, device=ids.device)
        return marks.scatter(1, ids, 1.0)[:, 1:]  # row 0 is no concept

    def recognised(self, rows: Tensor) -> Tensor:
        """Logits [n, K] of the concepts of item rows [n]."""
        values = self.items(rows)
        vectors = self.embeddings(values.ids, values.bags)
        joined = self._joined(self.items.features, vectors, values.numbers)
        return self._parted(self.item_tower(joined))[0]

    def _activated(self, values: Tensor) -> Tensor:
        return F.softplus(values) if self.bottleneck else values

    @staticmethod
    def _parted(numbers: Tensor) -> tuple[Tensor, Tensor]:
        """What a tower says of concepts [..., K], and its bias [..., 1]."""
        return numbers[..., :-1], numbers[..., -1:]

    def _explained(self, state: State, described: Tensor) -> Explanation:
        """Of requests and what the tower says of items [B, M, K + 1]."""
        shares, liked = self._parted(described)
        # in float64, so that nothing is lost between what is reported and what is summed
        interests, shares = state[INTERESTS].unsqueeze(1).double(), self._activated(shares).double()
        bias = self.bias.double() + state[LEANING].double() + liked.squeeze(2).double()
        return Explanation(interests * shares, bias)

    @staticmethod
    def _summed(explained: Explanation) -> Tensor:
        """Logits [B, M, 1]."""
        return (explained.contributions.sum(2) + explained.bias).float().unsqueeze(2)


def _naming(name: str, examples: Examples) -> Feature:
    """The feature that names the concepts. Raises ConfigError where there is none such."""
    option = "ranker.concepts"
    usable = usable_features((name,) if name else (), examples.schema, "item", option=option)
    kinds = [f for f in usable.values() if f.embedded and f.name != examples.schema.item]
    chosen = [f for f in kinds if f.name == name or not name]
    chosen.sort(key=lambda feature: feature.kind != "bag")
    if not chosen:
        have = ", ".join(feature.name for feature in kinds) or "none"
        raise ConfigError(f"{option} needs a bag or id feature of items; the log has: {have}")
    return chosen[0]
