"""What a text encoder learns from sentences and histories before it is fine-tuned.

P pairs of a history and what came next, n items, S tokens, V tokens of the vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from feature_store.options import Options
from recsys.embeddings.hashing import salt_of
from recsys.layers.enhanced_decoder import EnhancedDecoder, visible
from recsys.layers.token_head import TokenHead
from recsys.objectives.masked_tokens import Hidden, bag_of_words, hide_words, token_losses
from recsys.objectives.multi_view import multi_view
from recsys.retrievers.text_tower import TextTower
from recsys.text.batches import Sentences, TextBatch
from recsys.text.tokenised import CLS, TokenisedItems
from recsys.text.tokens import Tokenizer


class DecoderConfig(Options):
    """Xiao et al., RetroMAE, EMNLP 2022, and RetroMAE-2 (DupMAE), ACL 2023: a weak decoder rebuilds
    the item's sentence from its vector."""

    weight: float = Field(1.0, ge=0, description="Of the decoder's loss.")
    hidden: float = Field(
        0.3, gt=0, lt=1, description="Share of an item's words that are hidden from the encoder."
    )
    seen: float = Field(
        0.5, gt=0, lt=1, description="Share of the tokens that the decoder sees beside the vector."
    )
    bag_of_words: float = Field(
        0.1,
        ge=0,
        description="Of the loss of all tokens together on which there are; 0 is RetroMAE.",
    )


class ViewsConfig(Options):
    """Bai et al., COPE, ICCV 2023: an item's text, and another model's vector of it, are views."""

    run: Path = Field(description="A finished run, whose vectors of items are the other view.")
    weight: float = Field(1.0, gt=0, description="Of this loss.")
    temperature: float = Field(0.05, gt=0, description="What cosines are divided by.")
    smoothing: float = Field(
        0.1, ge=0, lt=1, description="Share of a target spread over all items."
    )


class PretrainingConfig(Options):
    """What is learned in the phase `pretrain`, and how much each loss counts."""

    contrast: float = Field(
        1.0, ge=0, description="Of the next item against those of the others in the batch."
    )
    masked: float = Field(0.1, ge=0, description="Of telling hidden words of histories and items.")
    hidden: float = Field(0.15, gt=0, lt=1, description="Share of words that are hidden.")
    decoder: DecoderConfig | None = Field(None, description="RetroMAE and DupMAE for items.")
    views: ViewsConfig | None = Field(None, description="Ties texts to another model's vectors.")
    runs: tuple[Path, ...] = Field(
        (),
        description="Other runs of models of texts that were trained, whose users and items are "
        "learned from besides.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.contrast or self.masked or self.decoder or self.views):
            raise ValueError("all losses weigh 0: there is nothing to learn from")
        return self


class View(NamedTuple):
    """Another model's vectors [N, W] of items; 0 where it has none."""

    vectors: Tensor
    config: ViewsConfig


class Pretraining(nn.Module):
    """The losses of pre-training, and the heads that they alone need."""

    starts: Tensor
    others: Tensor
    view: Tensor
    sentences: Sentences

    def __init__(
        self,
        config: PretrainingConfig,
        tower: TextTower,
        tokenizer: Tokenizer,
        width: int,
        sentences: Sentences,
        seed: int,
        view: View | None = None,
    ) -> None:
        super().__init__()
        self.sentences = sentences
        self.config, self.seed, self.mask = config, seed, tokenizer.mask
        table = tower.encoder.embedding.weight
        inner = tower.encoder.width
        self.head = TokenHead(inner, len(table)) if config.masked or config.decoder else None
        self.decoder = self.same = None
        if config.decoder is not None:
            heads = next(n for n in (4, 2, 1) if inner % n == 0)
            self.decoder = EnhancedDecoder(inner, heads, positions=_LONGEST)
        if view is not None:
            self.same = nn.Linear(view.vectors.shape[1], width)
            self.register_buffer("view", view.vectors, persistent=False)
        special = [tokenizer.cls, tokenizer.pad, tokenizer.sep, tokenizer.mask]
        others = np.setdiff1d(np.arange(len(tokenizer)), special)
        self.register_buffer("starts", torch.from_numpy(tokenizer.word_starts), persistent=False)
        self.register_buffer("others", torch.from_numpy(others), persistent=False)

    def forward(
        self, tower: TextTower, histories: TextBatch, items: TextBatch, rows: Tensor, step: int
    ) -> Tensor:
        """The weighted sum of all losses but the contrast of next items, each a mean over what it
        is of: hidden tokens, or items. `rows` [n] are those of the items."""
        config, total = self.config, histories.tokens.new_zeros((), dtype=torch.float32)
        generator = torch.Generator().manual_seed(
            salt_of("pretraining", self.seed, step) & _POSITIVE
        )
        if config.masked and self.head is not None:
            hidden = self._hide(histories, config.hidden, generator)
            states = tower.encoder(_with(histories, hidden.tokens))
            total = total + config.masked * self._told(tower, states, histories, hidden)
        if (config.masked or config.decoder) and self.head is not None:
            share = config.hidden if config.decoder is None else config.decoder.hidden
            hidden = self._hide(items, share, generator)
            states = tower.encoder(_with(items, hidden.tokens))
            total = total + config.masked * self._told(tower, states, items, hidden)
            if config.decoder is not None:
                total = total + self._rebuilt(tower, states, items, hidden, generator)
        if self.same is not None and config.views is not None:
            total = total + config.views.weight * self._tied(tower, items, rows)
        return total

    def _hide(self, batch: TextBatch, share: float, generator: torch.Generator) -> Hidden:
        words = batch.mask & (batch.types != CLS)
        changes = batch.item_positions.diff(dim=1) != 0  # an item's first token begins a word
        begins = self.starts[batch.tokens] | nn.functional.pad(changes, (1, 0), value=True)
        return hide_words(
            batch.tokens,
            begins,
            words,
            share=share,
            mask=self.mask,
            others=self.others,
            generator=generator,
        )

    def _told(self, tower: TextTower, states: Tensor, batch: TextBatch, hidden: Hidden) -> Tensor:
        """Mean loss of the hidden tokens."""
        assert self.head is not None
        logits = self.head(states[hidden.asked], tower.encoder.embedding.weight)
        losses = token_losses(logits, batch.tokens[hidden.asked])
        return losses.sum() / max(1, len(losses))

    def _rebuilt(
        self,
        tower: TextTower,
        states: Tensor,
        batch: TextBatch,
        hidden: Hidden,
        generator: torch.Generator,
    ) -> Tensor:
        """Mean losses of the decoder, and of the bag of words, as they weigh."""
        config, encoder = self.config.decoder, tower.encoder
        assert config is not None and self.head is not None and self.decoder is not None
        table, words = encoder.embedding.weight, batch.mask & (batch.types != CLS)
        words = words & (torch.arange(words.shape[1], device=words.device) < _LONGEST)
        total = states.new_zeros(())
        if config.weight:
            seen = visible(batch.mask[:, :_LONGEST], config.seen, generator)
            tokens = encoder.embedding(batch.tokens[:, :_LONGEST])
            told = self.decoder(encoder.pool(states, batch), tokens, seen)
            asked = words[:, :_LONGEST]
            logits = self.head(told[asked], table)
            losses = token_losses(logits, batch.tokens[:, :_LONGEST][asked])
            total = total + config.weight * losses.sum() / max(1, len(losses))
        if config.bag_of_words:
            kept = words & ~hidden.asked
            losses = bag_of_words(self.head(states, table), kept, batch.tokens, words)
            total = total + config.bag_of_words * losses.mean()
        return total

    def _tied(self, tower: TextTower, items: TextBatch, rows: Tensor) -> Tensor:
        """Mean loss of the items that have another view."""
        config = self.config.views
        assert config is not None and self.same is not None
        known = rows < len(self.view)  # the others are of other logs
        known = known & (self.view[rows.where(known, 0)] != 0).any(1)
        views = {
            "text": tower(TextBatch(*(part[known] for part in items.parts()))),
            "other": self.same(self.view[rows[known]]),
        }
        losses = multi_view(
            views,
            [("text", "other")],
            rows[known],
            temperature=config.temperature,
            smoothing=config.smoothing,
        )
        return losses.sum() / max(1, len(losses))


_LONGEST = 256  # tokens of an item that the decoder rebuilds, at most
_POSITIVE = (1 << 63) - 1


def _with(batch: TextBatch, tokens: Tensor) -> TextBatch:
    return TextBatch(tokens, batch.types, batch.item_positions, batch.mask)


def joined(parts: Iterable[TokenisedItems]) -> TokenisedItems:
    """Items of several catalogues, one behind the other; all by the same tokenizer."""
    items = list(parts)
    starts = np.cumsum([0] + [len(part.tokens) for part in items])
    offsets = [start + part.offsets[:-1] for start, part in zip(starts, items, strict=False)]
    return TokenisedItems(
        np.concatenate([part.tokens for part in items]),
        np.concatenate([part.types for part in items]),
        np.concatenate([*offsets, starts[-1:]]),
        items[0].cls,
        items[0].pad,
        items[0].sep,
    )
