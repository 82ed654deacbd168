"""UniSRec: a sequence model over texts alone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from recsys.data.examples import Examples
from recsys.embeddings.options import EmbeddingsConfig
from recsys.retrievers.adapters import AnyAdapter, Experts
from recsys.retrievers.item_texts import AdaptedTextConfig, ItemTexts
from recsys.retrievers.sasrec import SASRec, SASRecConfig


class MixedTextConfig(AdaptedTextConfig):
    """How texts become the vectors of items."""

    adapter: AnyAdapter = Field(
        Experts(),
        description="What brings them into the model's space; or a table with its options.",
    )


class UniSRecConfig(SASRecConfig):
    """After Hou et al., "Towards universal sequence representation learning for recommender
    systems", KDD 2022: frozen vectors of texts, an adapter, and SASRec. It is not pre-trained on
    other catalogues."""

    name: Literal["unisrec"] = "unisrec"  # type: ignore[assignment]
    text: MixedTextConfig = Field(  # type: ignore[assignment]
        MixedTextConfig(), description="What is read of items, and how."
    )


class UniSRec(SASRec):
    """Items have no vectors of ids: one that nobody has had is found by its text as any other."""

    Config = UniSRecConfig
    config: UniSRecConfig

    def make_items(self, embeddings: EmbeddingsConfig, examples: Examples) -> None:
        """Texts alone."""
        self.texts = ItemTexts(self.config.text, examples, self.config.width)

    def look_up(self, rows: Tensor, step: int | None = None, texts: Tensor | None = None) -> Tensor:
        """Vectors [..., D] of the texts of item rows [...]."""
        return self.texts(rows) if texts is None else texts
