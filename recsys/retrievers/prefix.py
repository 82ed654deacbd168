"""What nested vectors allow: a retriever by the first numbers of its vectors alone, and a
shortlist by them that the whole vectors then rank. Kusupati et al., NeurIPS 2022, section 4.3.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.data.batch import Batch
from recsys.lists.pairs import Pairs
from recsys.retrievers.base import Candidates, Queries, VectorRetriever


class Prefix(VectorRetriever):
    """A retriever that was trained with `matryoshka`, cut to `width`; its weights are shared."""

    def __init__(self, whole: VectorRetriever, width: int) -> None:
        super().__init__()
        self.whole, self.width = whole, width
        self.inputs, self.merge = whole.inputs, whole.merge
        self.needs_history = whole.needs_history

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        """The user's vectors [B, K, width]."""
        queries = self.whole.encode(inputs)
        return Queries(self._cut(queries.vectors), queries.weights)

    def embed_items(self, rows: Tensor) -> Tensor:
        """Item vectors [n, width]."""
        return self._cut(self.whole.embed_items(rows))

    def _cut(self, vectors: Tensor) -> Tensor:
        return self.whole.compared(vectors[..., : self.width])


class Shortlisted(Prefix):
    """`length` items by the prefix, ranked by the whole vectors."""

    def __init__(self, whole: VectorRetriever, width: int, length: int) -> None:
        super().__init__(whole, width)
        self.length = length

    def prepare(self, candidates: Tensor) -> None:
        """Fix what may be retrieved."""
        super().prepare(candidates)
        self.whole.prepare(candidates)

    @torch.no_grad()
    def retrieve(self, batch: Batch, k: int, exclude: Pairs | None = None) -> Candidates:
        """The k best of the shortlist; no list is longer than `length`."""
        shortlist = super().retrieve(batch, self.length, exclude)
        queries = self.whole.embed_users(batch)
        items = self.whole.embed_items(shortlist.ids.flatten()).unflatten(0, shortlist.ids.shape)
        scores = torch.einsum("bkd,bsd->bks", queries.vectors, items)
        scores = scores.masked_fill(queries.weights.unsqueeze(2) <= 0, float("-inf"))
        scores = scores.masked_fill((shortlist.ids == 0).unsqueeze(1), float("-inf"))
        values, order = self.merge.top_k(scores, queries.weights, k)
        ids = shortlist.ids.gather(1, order).masked_fill(values == float("-inf"), 0)
        return Candidates(ids, values)
