"""SASRec: self-attention over a user's events predicts the next one."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from feature_store.errors import ConfigError
from feature_store.examples import HISTORY
from recsys.batch import Batch
from recsys.embeddings.initial import standard_deviation
from recsys.embeddings.layout import EmbeddingsConfig, make_layout
from recsys.embeddings.tables import Embeddings
from recsys.examples import Examples
from recsys.inputs import Input
from recsys.layers.dropout import Dropout
from recsys.layers.self_attention import SelfAttentionBlock
from recsys.losses import sampled_softmax
from recsys.model import Loss
from recsys.negatives import NegativeSampler
from recsys.retrievers.base import Queries, RetrieverConfig, TrainedRetriever, single_interest


class SASRecConfig(RetrieverConfig):
    """Kang & McAuley, "Self-attentive sequential recommendation", ICDM 2018, trained with
    sampled softmax over cosine similarities as the strong re-runs of it are."""

    name: Literal["sasrec"] = "sasrec"
    width: int = Field(50, ge=2, description="D: width of item and user vectors.")
    blocks: int = Field(2, ge=1)
    heads: int = Field(1, ge=1)
    max_length: int = Field(200, ge=1, description="T: events of the history that are read.")
    dropout: float = Field(0.2, ge=0, lt=1)
    negatives: int = Field(
        256,
        ge=0,
        description="Negatives drawn per step, shared by all rows; 0 takes every trained item, "
        "which makes it the softmax over the catalogue.",
    )
    negative_sampling: Literal["uniform", "popularity"] = "uniform"
    log_q: bool = Field(False, description="Correct the logits for how often items are drawn.")
    temperature: float = Field(0.05, gt=0)
    normalise: bool = Field(True, description="Cosine similarity instead of inner product.")

    search_space: ClassVar[dict[str, dict[str, Any]]] = {
        "width": {"choices": [32, 64, 128]},
        "blocks": {"low": 1, "high": 3},
        "dropout": {"low": 0.0, "high": 0.5},
        "temperature": {"low": 0.02, "high": 0.2, "log": True},
    }


class SASRec(TrainedRetriever):
    """Item vectors are the input embeddings; a user is the last position's output."""

    def __init__(
        self, config: SASRecConfig, embeddings: EmbeddingsConfig, examples: Examples, seed: int = 0
    ) -> None:
        super().__init__()
        if config.width % config.heads:
            raise ConfigError(
                f"retriever.width = {config.width} is not a multiple of "
                f"retriever.heads = {config.heads}"
            )
        self.config = config
        self.item = examples.schema.item
        self.inputs = (Input(HISTORY, "sequence", config.max_length),)
        layout = make_layout([examples.spec(self.item)], config.width, embeddings)
        layout.require(self.item, config.width)
        self.embeddings = Embeddings(layout, seed)
        # added to the items' vectors, so never in their table
        self.positions = nn.Parameter(torch.empty(config.max_length, config.width))
        nn.init.normal_(self.positions, std=standard_deviation(embeddings))
        self.input_norm = nn.LayerNorm(config.width)
        self.drop = Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            SelfAttentionBlock(config.width, config.heads, config.width, config.dropout)
            for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.width)
        self.sampler = NegativeSampler(examples.train_events, config.negative_sampling, seed=seed)

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """User vectors [B, 1, D] after the last event of the history [B, T]."""
        history = inputs[HISTORY]
        out = self._transform(history, self.embeddings({self.item: history})[self.item])
        last = (history != 0).sum(1).clamp(min=1) - 1
        chosen = out.gather(1, last[:, None, None].expand(-1, 1, out.shape[2])).squeeze(1)
        return single_interest(self._unit(chosen))

    def embed_items(self, rows: Tensor) -> Tensor:
        """Item vectors [n, D]."""
        return self._unit(self.embeddings({self.item: rows})[self.item])

    def forward(self, batch: Batch, step: int) -> Loss:
        """Sampled softmax at every position that has a next event."""
        config = self.config
        history = batch.padded(HISTORY, config.max_length + 1)
        if config.negatives:
            negatives = self.sampler.sample(config.negatives, step)
        else:
            negatives = self.sampler.everything()
        rows = torch.cat([history.flatten(), negatives])
        vectors = self.embeddings({self.item: rows})[self.item]
        events = vectors[: history.numel()].view(*history.shape, -1)
        targets = history[:, 1:]
        valid = targets != 0
        # a last event is a target alone: positions count back from the one before it, as serving's
        read = history[:, :-1].masked_fill(~valid, 0)
        out = self._transform(read, events[:, :-1])
        log_q = None
        if config.log_q and config.negatives:
            log_q = (
                self.sampler.log_expected(targets[valid], config.negatives),
                self.sampler.log_expected(negatives, config.negatives),
            )
        losses = sampled_softmax(
            self._unit(out[valid]) / config.temperature,
            self._unit(events[:, 1:][valid]),
            self._unit(vectors[history.numel() :]),
            targets=targets[valid],
            negative_ids=negatives,
            log_q=log_q,
        )
        return Loss(losses.sum(), valid.sum())

    def _transform(self, history: Tensor, events: Tensor) -> Tensor:
        """[B, T] rows and [B, T, D] vectors -> [B, T, D]. Positions count back from the end."""
        steps = torch.arange(history.shape[1], device=history.device)
        ago = ((history != 0).sum(1, keepdim=True) - 1 - steps).clamp(min=0)
        x = self.drop(self.input_norm(events + F.embedding(ago, self.positions)))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _unit(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.config.normalise else vectors
