"""TextEncoder: sequences of sentences -> hidden states and vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feature_store.durable import staged
from feature_store.errors import ConfigError
from recsys.text.batches import TextBatch
from recsys.text.checkpoints import Pooling, open_encoder, save_encoder, tables_of
from recsys.text.extras import needed
from recsys.text.local_attention import LocalAttention, near_or_first
from recsys.text.options import TextConfig
from recsys.text.tokenised import PADDING
from recsys.text.tokens import Tokenizer


class TextEncoder(nn.Module):
    """An encoder that is told of every token what it is, where it stands, whether it is of a name
    or of a value, and of which item.

    These four embeddings are summed and normalised, as in Recformer (Li et al., KDD 2023). The
    encoder is the one of `config.encoder`, or a small Longformer of random weights. What the folder
    of an encoder does not have, types and item positions, begins at zero: before any training it
    answers as transformers does.
    """

    def __init__(self, config: TextConfig, tokenizer: Tokenizer) -> None:
        """Raises ConfigError or DataError for folders that hold no encoder, for one whose tokens
        are fewer than the tokenizer's, and where `max_tokens` is more than it has positions for."""
        super().__init__()
        if config.encoder is None:
            self.model: Any = _small(config, tokenizer)
            self.pooling = Pooling(mean=True)
        else:
            self.model = open_encoder(config.encoder)
            self.pooling = Pooling.of(config.encoder)
        if config.pooling is not None:
            self.pooling = replace(self.pooling, mean=config.pooling == "mean")
        about = self.model.config
        self.first_position = 0 if about.model_type == "bert" else about.pad_token_id + 1
        self._check(config, tokenizer)
        self.width: int = about.hidden_size
        self.windows: list[int] = []  # of the layers whose attention is local
        if about.model_type == "longformer":
            self.windows = list(about.attention_window)
            for layer in self.model.encoder.layer:
                layer.attention.self = LocalAttention(layer.attention.self)
        self.types = nn.Embedding(PADDING + 1, self.width) if config.token_types else None
        self.places = (
            nn.Embedding(config.max_items + 1, self.width) if config.item_positions else None
        )
        for table in (self.types, self.places):
            if table is not None:
                nn.init.zeros_(table.weight)
        if config.encoder is not None:
            self._take(tables_of(config.encoder))

    def _check(self, config: TextConfig, tokenizer: Tokenizer) -> None:
        about = self.model.config
        if len(tokenizer) > about.vocab_size:
            raise ConfigError(
                f"the tokenizer has {len(tokenizer)} tokens, the encoder of {config.encoder} "
                f"{about.vocab_size}: text.tokenizer must be the one that it was trained with"
            )
        longest = about.max_position_embeddings - self.first_position
        if config.max_tokens > longest:
            raise ConfigError(
                f"text.max_tokens is {config.max_tokens}; the encoder of {config.encoder} reads "
                f"{longest} at most"
            )

    @torch.no_grad()
    def _take(self, saved: dict[str, Tensor]) -> None:
        """Types and item positions that `save` has written, as many as both have."""
        for name, table in (("types", self.types), ("places", self.places)):
            if table is not None and name in saved:
                rows = min(len(saved[name]), len(table.weight))
                table.weight[:rows] = saved[name][:rows]

    def save(self, folder: Path, tokenizer: Tokenizer) -> None:
        """Write a folder that `TextConfig.encoder` names, and `transformers` reads; it appears
        whole."""
        tables = {"types": self.types, "places": self.places}
        weights = {name: table.weight for name, table in tables.items() if table is not None}
        with staged(Path(folder)) as aside:
            tokenizer.save(aside)
            save_encoder(self.model, self.pooling, weights, aside)

    @property
    def embedding(self) -> nn.Embedding:
        """The vectors of tokens [V, D]."""
        table: nn.Embedding = self.model.embeddings.word_embeddings
        return table

    def position_ids(self, batch: TextBatch) -> Tensor:
        """Rows [B, S] of the table of positions: BERT counts from 0, RoBERTa and Longformer from
        behind their token of padding, which is also the place of padding."""
        if self.first_position == 0:
            return (batch.mask.cumsum(1) - 1).clamp(min=0)
        return batch.mask.cumsum(1) * batch.mask + self.first_position - 1

    def embed(self, batch: TextBatch) -> Tensor:
        """What is known of every token but its position [B, S, D]."""
        embedded = self.embedding(batch.tokens)
        if self.types is not None:
            embedded = embedded + self.types(batch.types)
        if self.places is not None:
            embedded = embedded + self.places(batch.item_positions)
        return embedded

    def forward(self, batch: TextBatch) -> Tensor:
        """Hidden states [B, S, D]; those of padding mean nothing."""
        return self.encode(self.embed(batch), batch)

    def encode(self, embedded: Tensor, batch: TextBatch) -> Tensor:
        """Hidden states [B, S, D] of what `embed` made, or of what took its place."""
        positions = self.position_ids(batch)
        if not self.windows:
            output = self.model(
                inputs_embeds=embedded, attention_mask=batch.mask, position_ids=positions
            )
            hidden: Tensor = output.last_hidden_state
            return hidden
        hidden = self.model.embeddings(inputs_embeds=embedded, position_ids=positions)
        seen = {window: near_or_first(batch.mask, window) for window in set(self.windows)}
        for layer, window in zip(self.model.encoder.layer, self.windows, strict=True):
            hidden = layer(hidden, attention_mask=seen[window])[0]
        return hidden

    def pool(self, hidden: Tensor, batch: TextBatch) -> Tensor:
        """One vector [B, D] for each sequence of hidden states [B, S, D]."""
        if self.pooling.mean:
            mask = batch.mask.unsqueeze(2).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        else:
            pooled = hidden[:, 0]
        return F.normalize(pooled, dim=1) if self.pooling.unit else pooled

    def vectors(self, batch: TextBatch) -> Tensor:
        """The vector of each sequence [B, D]."""
        return self.pool(self(batch), batch)


def _small(config: TextConfig, tokenizer: Tokenizer) -> Any:
    """A Longformer with random weights."""
    transformers = needed("transformers")
    about = transformers.LongformerConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.width,
        attention_window=[config.window] * config.layers,
        max_position_embeddings=config.max_tokens + tokenizer.pad + 1,
        type_vocab_size=1,
        initializer_range=0.02 * (768 / config.width) ** 0.5,  # outputs as wide as BERT's
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=0.0,  # would forbid the fused kernels
        bos_token_id=tokenizer.cls,
        pad_token_id=tokenizer.pad,
        eos_token_id=tokenizer.sep,
    )
    model = transformers.LongformerModel(about, add_pooling_layer=False)
    _begin_with_words(model)
    return model


def _begin_with_words(model: Any) -> None:
    """What attention and layers add begins at zero, and so do positions: a sequence is its words,
    where random ones, which all sequences share, would make them alike."""
    nn.init.zeros_(model.embeddings.position_embeddings.weight)
    nn.init.zeros_(model.embeddings.token_type_embeddings.weight)  # the same of all tokens
    for layer in model.encoder.layer:
        nn.init.zeros_(layer.attention.output.dense.weight)
        nn.init.zeros_(layer.output.dense.weight)
