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
from recsys.text.word_vectors import WordVectors


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
            self.pooling = replace(self.pooling, mean=config.pooling != "first")
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
        saved = {} if config.encoder is None else tables_of(config.encoder)
        weighted = config.encoder is None or "weights" in saved
        if config.pooling is not None:
            weighted = config.pooling == "weighted"
        # logarithms of what tokens and places weigh
        self.weights = nn.Embedding(about.vocab_size, 1) if weighted else None
        self.recency = (
            nn.Embedding(config.max_items + 1, 1) if weighted and config.item_positions else None
        )
        self._begin()
        self._take(saved)

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

    @property
    def _tables(self) -> dict[str, nn.Embedding]:
        """What is ours of the encoder: `transformers` knows none of it."""
        tables = {
            "types": self.types,
            "places": self.places,
            "weights": self.weights,
            "recency": self.recency,
        }
        return {name: table for name, table in tables.items() if table is not None}

    @torch.no_grad()
    def _begin(self) -> None:
        """Nothing is known of types and places, all tokens weigh the same, and the n-th newest item
        1 / n^2."""
        for table in self._tables.values():
            nn.init.zeros_(table.weight)
        if self.recency is not None:
            places = torch.arange(len(self.recency.weight)).clamp(min=1)
            self.recency.weight[:, 0] = -2 * places.log()

    @torch.no_grad()
    def _take(self, saved: dict[str, Tensor]) -> None:
        """The tables that `save` has written, as many rows as both have."""
        for name, table in self._tables.items():
            if name in saved:
                rows = min(len(saved[name]), len(table.weight))
                table.weight[:rows] = saved[name][:rows]

    @torch.no_grad()
    def begin_with(self, words: WordVectors) -> None:
        """Let the vectors of tokens, as long as they are now, and their weights be these."""
        tokens = torch.from_numpy(words.tokens)
        vectors = torch.from_numpy(words.vectors)
        table = self.embedding.weight
        told = vectors.any(dim=1)
        table[tokens[told]] = vectors[told].to(table) * table.norm(dim=1).mean()
        if self.weights is not None:
            self.weights.weight[tokens, 0] = torch.from_numpy(words.weights).log().to(table)

    def save(self, folder: Path, tokenizer: Tokenizer) -> None:
        """Write a folder that `TextConfig.encoder` names, and `transformers` reads; it appears
        whole."""
        weights = {name: table.weight for name, table in self._tables.items()}
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
            weights = batch.mask.unsqueeze(2).to(hidden.dtype)
            if self.weights is not None:
                weights = weights * self.weights(batch.tokens).exp()
            if self.recency is not None:
                weights = weights * self.recency(batch.item_positions).exp()
            pooled = (hidden * weights).sum(1) / weights.sum(1)
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
