"""GF-CF: a low-pass filter on the graph of users and items, without training."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from recsys.options import ModelConfig
from recsys.retrievers.filters import GraphFilter


class GFCFConfig(ModelConfig):
    """Shen et al., "How powerful is graph convolution for recommendation?", CIKM 2021."""

    name: Literal["gf_cf"] = "gf_cf"
    alpha: float = Field(0.3, ge=0, description="Weight of the ideal low-pass filter.")
    components: int = Field(
        256, ge=1, description="Singular vectors that the ideal low-pass filter lets through."
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "alpha": {"low": 0.0, "high": 1.0},
        "components": {"low": 16, "high": 512, "log": True},
    }


class GFCF(GraphFilter):
    """The linear filter plus `alpha` times the ideal one."""

    Config = GFCFConfig
    config: GFCFConfig

    @property
    def components(self) -> int:
        """Of the ideal filter."""
        return self.config.components

    def score(self, histories: Tensor) -> Tensor:
        """Scores [B, N]."""
        return self.linear(histories) + self.config.alpha * self.ideal(histories)
