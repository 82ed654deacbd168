"""The deep network at the top of rankers, with a logit for each of their tasks."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from torch import nn

from recsys.layers.deep import Activation, deep_network
from recsys.layers.mmoe import MMoE
from recsys.model import Columns
from recsys.rankers.features import FeatureOptions


class TopOptions(FeatureOptions):
    """Options of rankers with a deep network at the top."""

    experts: int = Field(
        0,
        ge=0,
        description="Deep networks that each task mixes in its own way, by gates; 0: all tasks "
        "share one, and differ in the last layer alone.",
    )

    @model_validator(mode="after")
    def _experts_are_deep(self) -> Self:
        if self.experts and not self.hidden:
            raise ValueError("experts are deep networks: give them hidden layers")
        return self


def top_network(
    width: int, config: TopOptions, tasks: int, activation: Activation = "relu"
) -> nn.Module:
    """[n, width] -> logits [n, tasks]."""
    if config.experts:
        return MMoE(
            width,
            config.hidden,
            tasks,
            config.experts,
            activation=activation,
            dropout=config.dropout,
        )
    return deep_network(width, config.hidden, tasks, activation=activation, dropout=config.dropout)


def columns_of_top(name: str, config: TopOptions, widths: dict[str, int]) -> dict[str, Columns]:
    """`columns` of a ranker whose `top_network`, called `name`, reads these features."""
    if not config.experts:
        return {f"{name}.0.weight": Columns((1,), widths)}
    readers = [*(f"experts.{expert}.0" for expert in range(config.experts)), "gates"]
    return {f"{name}.{reader}.weight": Columns((1,), widths) for reader in readers}
