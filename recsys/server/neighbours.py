"""Items near an item, by the cosine of a generator's vectors. N items, D width."""

from __future__ import annotations

import torch
from torch import Tensor

from feature_store.vocabulary import Vocabulary
from recsys.lists.merging import BY_SCORE
from recsys.serving.catalogue import ItemCatalogue
from recsys.serving.generator import Generator
from recsys.serving.index.base import Queries

_UNIT_SLACK = 1e-3


class Neighbours:
    """Finds them among the items of a generator that has vectors: by its index where the vectors
    have length 1, since inner products are cosines then, and otherwise by comparing all."""

    def __init__(self, generator: Generator, catalogue: ItemCatalogue) -> None:
        self.catalogue = catalogue
        self._items = generator.items
        self._index = generator.index
        self._space = generator.record.space
        self.vocabulary = Vocabulary(generator.item_ids)
        norms = self._items.norm(dim=1)
        self._inverse = torch.where(norms > 0, 1 / norms, 0.0)
        self._units = bool((norms - 1).abs().amax() < _UNIT_SLACK)

    def of(self, places: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(cosines [B, k], places [B, k]) of the k nearest to the items at `places` [B], without
        the item itself; -1 for none."""
        queries = self._items[places] * self._inverse[places].unsqueeze(1)
        if self._units:
            asked = Queries(queries.unsqueeze(1), torch.ones(len(places), 1), self._space)
            return self._index.search(asked, k, places.unsqueeze(1), BY_SCORE)
        cosines = queries @ self._items.T * self._inverse
        cosines.scatter_(1, places.unsqueeze(1), float("-inf"))
        values, nearest = cosines.topk(min(k, cosines.shape[1]), dim=1)
        return values, nearest.masked_fill(values == float("-inf"), -1)
