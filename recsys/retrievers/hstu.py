"""HSTU: attention without softmax, that knows when things happened."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.examples import Examples
from recsys.embeddings.options import EmbeddingsConfig
from recsys.layers.hstu import HSTUBlock, time_buckets
from recsys.retrievers.sequential import Moments, SequentialConfig, SequentialRetriever


class HSTUConfig(SequentialConfig):
    """Zhai et al., "Actions speak louder than words", ICML 2024. The published large model has
    8 blocks, 2 heads of width 25; the base one is the default."""

    name: Literal["hstu"] = "hstu"
    head_width: int | None = Field(
        None, ge=1, description="Width of a head's queries and values; by default width / heads."
    )
    time_bias: bool = Field(
        True,
        description="Attend by the time that has passed, too, up to the request's; without effect "
        "on logs that hold an order and no times.",
    )

    epsilon: float = Field(
        1e-5,
        gt=0,
        description="Added to variances in norms. What a block has attended to is small after a "
        "short history, and the larger this is, the less of it is left; the authors have 1e-6.",
    )
    position_std: float | None = Field(
        None,
        gt=0,
        description="Standard deviation of the positions' initial vectors; by default that of the "
        "embeddings, the authors have 1 / sqrt(width).",
    )

    search_space: ClassVar = {**SequentialConfig.search_space, "blocks": {"low": 2, "high": 8}}


class HSTU(SequentialRetriever):
    """Positions and gaps in time are biases of the attention."""

    Config = HSTUConfig
    config: HSTUConfig

    def __init__(
        self, config: HSTUConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
    ) -> None:
        super().__init__(config, embeddings, examples, seed)
        if config.time_bias and examples.schema.clock == "time":
            self.read_times()
        self.scale = math.sqrt(config.width)
        if config.position_std is not None:
            nn.init.normal_(self.positions, std=config.position_std)
        self.blocks = nn.ModuleList(
            HSTUBlock(
                config.width,
                config.heads,
                config.head_width or config.width // config.heads,
                config.max_length,
                config.dropout,
                timed=self.timed,
                epsilon=config.epsilon,
            )
            for _ in range(config.blocks)
        )

    def transform(self, history: Tensor, events: Tensor, moments: Moments | None) -> Tensor:
        """[B, T] rows and [B, T, D] vectors -> [B, T, D]. Positions count back from the end."""
        x = self.drop(events * self.scale + F.embedding(self.ago(history), self.positions))
        buckets = None if moments is None else time_buckets(*moments)
        for block in self.blocks:
            x = block(x, buckets)
        return x
