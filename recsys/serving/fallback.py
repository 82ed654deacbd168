"""Fallback: what a generator answers where it knows nothing of a history."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import torch
from torch import Tensor

from feature_store.parquet import read_parquet
from feature_store.vocabulary import Vocabulary

FALLBACK = "fallback.parquet"
ITEM, SCORE = "item", "score"


@dataclass(frozen=True)
class Fallback:
    """One list for everybody: n places among a generator's items, best first, and their scores."""

    places: Tensor
    scores: Tensor

    @classmethod
    def read(cls, path: Path, item_ids: pa.Array) -> Self:
        """The list in a file, as places among `item_ids`."""
        table = read_parquet(path)
        places = Vocabulary(item_ids).encode(table.column(ITEM)) - 1
        scores = table.column(SCORE).to_numpy()
        return cls(torch.from_numpy(places), torch.tensor(scores, dtype=torch.float32))

    def top(self, requests: int, k: int, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(scores [B, k], places [B, k]) for a number of requests, of the items that are `allowed`
        [n], by default all; k is cut to their number."""
        scores, places = self.scores, self.places
        if allowed is not None:
            kept = allowed[places].nonzero().squeeze(1)[:k]
            scores, places = scores[kept], places[kept]
        scores, places = (column[:k].expand(requests, -1) for column in (scores, places))
        return scores.clone(), places.clone()
