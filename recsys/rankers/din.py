"""DIN: what matters of a history depends on the item."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from recsys.data.examples import Examples
from recsys.embeddings.options import EmbeddingsConfig
from recsys.layers.deep import Activation
from recsys.layers.local_activation import LocalActivation
from recsys.rankers.pooling import InterestOptions, Pooling


class DINConfig(InterestOptions):
    """Zhou et al., "Deep interest network for click-through rate prediction", KDD 2018."""

    name: Literal["din"] = "din"
    activation: Activation = Field(
        "dice", description="Between layers; dice adapts to the distribution of its inputs."
    )
    attention_hidden: tuple[int, ...] = Field(
        (36,), min_length=1, description="Hidden layers of the local activation unit."
    )
    softmax: bool = Field(
        False,
        description="Weights of a history sum to 1; otherwise their sum says how strong the "
        "interest is.",
    )

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        **InterestOptions.search_space,
        "softmax": {"choices": [False, True]},
    }


class DIN(Pooling):
    """As pooling, with a local activation unit for every history in place of its mean."""

    Config = DINConfig

    def __init__(
        self, config: DINConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
    ) -> None:
        super().__init__(config, embeddings, examples, seed)
        self.attention = nn.ModuleDict(
            {
                f"of_{history.name}": LocalActivation(
                    self.item_width,
                    config.attention_hidden,
                    config.activation,
                    softmax=config.softmax,
                )
                for history in self.histories
            }
        )

    def interest(self, history: str, items: Tensor, keys: Tensor, kept: Tensor) -> Tensor:
        """[B, M, I]."""
        unit: Tensor = self.attention[f"of_{history}"](items, keys, kept)
        return unit
