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
from recsys.rankers.base import State
from recsys.rankers.features import REQUEST, FeatureOptions, FeatureRanker

INTERESTS = "interests"  # in a state: of requests in concepts


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

    All three are positive: a concept can only speak for an item, and the bias says how much has to.
    The item's is learned from its labels, too; items without any label are free.
    """

    Config = SESAConfig

    def __init__(
        self, config: SESAConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
    ) -> None:
        super().__init__(config, embeddings, examples, seed)
        feature = _naming(config.concepts, examples)
        names = tuple(str(name) for name in examples.vocabulary(feature.name).values.to_pylist())
        if not names:
            raise ConfigError(f"ranker.concepts = {feature.name!r}: no item has a value of it")
        self.beta, self.bottleneck, k = config.beta, config.bottleneck, len(names)
        self.concepts = names if config.bottleneck else ()
        self.interests = deep_network(self.request_width, config.hidden, k, dropout=config.dropout)
        self.shares = deep_network(self.item_width, config.hidden, k, dropout=config.dropout)
        self.columns = {
            "interests.0.weight": Columns((1,), self.request_widths),
            "shares.0.weight": Columns((1,), self.item_widths),
        }
        labels = examples.item_column(feature)
        self.register_buffer("item_labels", labels.reshape(len(labels), -1), persistent=False)
        # so that a fresh model's contributions, of softplus(0) each, sum to about minus the bias
        weight, each = k**-0.5, math.log(2) ** 2
        self.raw_weights = nn.Parameter(torch.full((k,), math.log(math.expm1(weight))))
        self.bias = nn.Parameter(torch.tensor(-k * weight * each if config.bottleneck else 0.0))

    def digest(self, state: State) -> State:
        """INTERESTS [B, K], weighted."""
        weights = F.softplus(self.raw_weights)
        return {INTERESTS: weights * self._activated(self.interests(state[REQUEST]))}

    def rate(self, state: State, items: Tensor) -> Tensor:
        """Logits [B, M, 1]."""
        return self._summed(self._contributions(state, self.shares(items)))

    def explain(self, inputs: dict[str, Tensor], items: Tensor) -> Tensor:
        """Contributions [B, M, C] of `concepts` to the logits of item rows [B, M], in float64; they
        sum to the logit minus the bias, but for the logit's last digit in float32.

        Raises ConfigError for a network without the bottleneck.
        """
        if not self.bottleneck:
            return super().explain(inputs, items)
        state, vectors = self._looked_up(inputs, items)
        assert vectors is not None
        return self._contributions(self.digest(state), self.shares(vectors))

    def forward(self, batch: Batch, step: int) -> Loss:
        """Binary cross-entropy of the label and, by beta, of the item's concepts, a mean of K."""
        rows = batch.id(self.item)
        state, vectors = self._looked_up(self.inputs_of(batch), rows.unsqueeze(1))
        assert vectors is not None
        shares = self.shares(vectors)
        logits = self._summed(self._contributions(self.digest(state), shares)).squeeze(1)
        total = F.binary_cross_entropy_with_logits(logits, self.labels(batch), reduction="sum")
        if self.bottleneck and self.beta:
            targets = self.labelled(rows)
            losses = F.binary_cross_entropy_with_logits(
                shares.squeeze(1).float(), targets, reduction="none"
            )
            total = total + self.beta * (losses.mean(1) * targets.amax(1)).sum()
        return Loss(total, total.new_tensor(len(rows)))

    def labelled(self, rows: Tensor) -> Tensor:
        """Of which concepts item rows [n] are labelled, 0 or 1 [n, K]."""
        ids: Tensor = self.item_labels[rows]  # type: ignore[index, assignment]
        marks = torch.zeros(len(rows), len(self.raw_weights) + 1, device=ids.device)
        return marks.scatter(1, ids, 1.0)[:, 1:]  # row 0 is no concept

    def recognised(self, rows: Tensor) -> Tensor:
        """Logits [n, K] of the concepts of item rows [n]."""
        values = self.items(rows)
        vectors = self.embeddings(values.ids, values.bags)
        logits: Tensor = self.shares(self._joined(self.items.features, vectors, values.numbers))
        return logits

    def _activated(self, values: Tensor) -> Tensor:
        return F.softplus(values) if self.bottleneck else values

    def _contributions(self, state: State, shares: Tensor) -> Tensor:
        """[B, M, K] in float64, so that sums of them are exact to the last digit of a logit."""
        return state[INTERESTS].unsqueeze(1).double() * self._activated(shares).double()

    def _summed(self, contributions: Tensor) -> Tensor:
        return (contributions.sum(2, keepdim=True) + self.bias.double()).float()


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
