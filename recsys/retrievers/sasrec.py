"""SASRec: self-attention over a user's events predicts the next one."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.data.examples import Examples
from recsys.embeddings.options import EmbeddingsConfig
from recsys.layers.self_attention import GatedBlock, SelfAttentionBlock
from recsys.retrievers.sequential import Moments, SequentialConfig, SequentialRetriever

_BLOCKS = {"classic": SelfAttentionBlock, "gated": GatedBlock}


class SASRecConfig(SequentialConfig):
    """Kang & McAuley, "Self-attentive sequential recommendation", ICDM 2018, trained with
    sampled softmax over cosine similarities as the strong re-runs of it are."""

    name: Literal["sasrec"] = "sasrec"
    block: Literal["classic", "gated"] = Field(
        "classic", description="gated: both halves gated, and a SwiGLU feed-forward."
    )

    search_space: ClassVar = {
        **SequentialConfig.search_space,
        "block": {"choices": ["classic", "gated"]},
    }


class SASRec(SequentialRetriever):
    """Causal attention; it knows the order of events, not their times."""

    Config = SASRecConfig
    config: SASRecConfig

    def __init__(
        self, config: SASRecConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
    ) -> None:
        super().__init__(config, embeddings, examples, seed)
        self.input_norm = nn.LayerNorm(config.width)
        block = _BLOCKS[config.block]
        self.blocks = nn.ModuleList(
            block(config.width, config.heads, config.width, config.dropout)
            for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.width)

    def transform(self, history: Tensor, events: Tensor, moments: Moments | None) -> Tensor:
        """[B, T] rows and [B, T, D] vectors -> [B, T, D]. Positions count back from the end."""
        x = self.drop(self.input_norm(events + F.embedding(self.ago(history), self.positions)))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
