"""Sequences of items' sentences -> vectors in the space of a retriever. D width, N item rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.text.batches import Sentences, TextBatch
from recsys.text.encoder import TextEncoder
from recsys.text.tokenised import PADDING
from recsys.text.vectors import item_vectors


class TextTower(nn.Module):
    """A text encoder, and a linear map where its width is not the retriever's."""

    def __init__(self, encoder: TextEncoder, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.out = nn.Identity() if encoder.width == width else nn.Linear(encoder.width, width)

    def forward(self, batch: TextBatch) -> Tensor:
        """Vectors [B, D], not yet of unit length."""
        vectors: Tensor = self.out(self.encoder.vectors(batch))
        return vectors

    @torch.no_grad()
    def of_items(self, sentences: Sentences, rows: Tensor) -> Tensor:
        """Vectors [n, D] of item rows [n], each distinct sentence encoded once."""
        vectors: Tensor = self.out(item_vectors(self.encoder, sentences, rows))
        return vectors


class ItemProgram(nn.Module):
    """From tokens of new items to their vectors of unit length: what a bundle brings along."""

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, tokens: Tensor, types: Tensor) -> Tensor:
        """[n, S] and [n, S], the types of `recsys.text.tokenised` -> [n, D]."""
        mask = types != PADDING
        places = mask.long()
        places = torch.cat([places[:, :1] * 0, places[:, 1:]], dim=1)  # 0 of [CLS], 1 of the item
        vectors = self.tower(TextBatch(tokens, types, places, mask))
        return nn.functional.normalize(vectors, dim=-1)
