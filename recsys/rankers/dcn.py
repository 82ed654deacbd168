"""DCN-V2: cross layers over all features, then a deep network."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from recsys.data.examples import Examples
from recsys.embeddings.options import EmbeddingsConfig
from recsys.layers.cross import CrossLayers
from recsys.model import Columns
from recsys.rankers.base import State
from recsys.rankers.features import REQUEST, FeatureRanker
from recsys.rankers.top import TopOptions, columns_of_top, top_network


class DCNConfig(TopOptions):
    """Wang et al., "DCN V2: improved deep & cross network", WWW 2021, stacked."""

    name: Literal["dcn"] = "dcn"
    cross_layers: int = Field(2, ge=0, description="Cross layers, one on the other.")

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        **TopOptions.search_space,
        "cross_layers": {"low": 1, "high": 3},
    }


class DCN(FeatureRanker):
    """Reads features of the user, the item and the event, but no histories."""

    Config = DCNConfig

    def __init__(
        self, config: DCNConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
    ) -> None:
        super().__init__(config, embeddings, examples, seed)
        width = self.request_width + self.item_width
        self.cross = CrossLayers(width, config.cross_layers)
        self.deep = top_network(width, config, len(self.tasks))
        widths = {**self.request_widths, **self.item_widths}
        self.columns = columns_of_top("deep", config, widths)
        for layer in range(config.cross_layers):
            self.columns[f"cross.layers.{layer}.weight"] = Columns((0, 1), widths)
            self.columns[f"cross.layers.{layer}.bias"] = Columns((0,), widths)

    def rate(self, state: State, items: Tensor) -> Tensor:
        """Logits [B, M, tasks]."""
        request = state[REQUEST].unsqueeze(1).expand(-1, items.shape[1], -1)
        both = torch.cat([request, items], dim=2)
        logits = self.deep(self.cross(both.flatten(0, 1)))
        return logits.unflatten(0, items.shape[:2])
