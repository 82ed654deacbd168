"""Approximate search by FAISS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from feature_store.errors import ConfigError
from recsys.lists.merging import Merge
from recsys.lists.search import search
from recsys.serving.index.base import Index, rank_shortlist
from recsys.serving.index.native import INDEX_FILE, read_faiss, reason_of
from recsys.serving.index.options import FaissConfig
from recsys.serving.index.short import FEW_ALLOWED, fill_short


class FaissIndex(Index):
    """Shortlists of every interest, re-scored exactly on the stored vectors; asks for more than k
    where items are excluded or interests overlap."""

    def __init__(self, vectors: Tensor, space: str, index: Any) -> None:
        super().__init__(vectors, space)
        self._index = index

    @classmethod
    def build(cls, vectors: Tensor, space: str, config: FaissConfig) -> Self:
        """Raises ConfigError for a factory that FAISS cannot make of these vectors."""
        import faiss

        width = vectors.shape[1]
        try:
            index = faiss.index_factory(width, config.factory, faiss.METRIC_INNER_PRODUCT)
            index.train(vectors.numpy())
        except RuntimeError as error:
            raise ConfigError(
                f"export.index.factory = {config.factory!r} cannot be made of {len(vectors)} "
                f"vectors of width {width}: {reason_of(error)}"
            ) from None
        index.add(vectors.numpy())
        return cls(vectors, space, index)

    @classmethod
    def load(
        cls, file: Callable[[str], Path], vectors: Tensor, space: str, config: FaissConfig
    ) -> Self:
        """Read `index.faiss`. Raises DataError when it cannot be read."""
        return cls(vectors, space, read_faiss(file(INDEX_FILE), vectors))

    @property
    def bytes(self) -> int:
        """Of what FAISS keeps, and of the vectors that score again what it finds."""
        import faiss

        return int(faiss.serialize_index(self._index).nbytes) + self.vectors.nbytes

    def save(self, folder: Path) -> None:
        """Write `index.faiss`."""
        import faiss

        super().save(folder)
        faiss.write_index(self._index, str(folder / INDEX_FILE))

    def _search(
        self,
        vectors: Tensor,
        weights: Tensor,
        k: int,
        exclude: Tensor | None,
        merge: Merge,
        allowed: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if allowed is not None and FEW_ALLOWED * int(allowed.sum()) <= len(self):
            return search(vectors, weights, self.vectors, k, exclude, merge, allowed)
        shortlist = self._shortlist(vectors, k, exclude, allowed)
        answer = rank_shortlist(shortlist, vectors, weights, self.vectors, k, merge)
        return fill_short(answer, self.vectors, vectors, weights, k, exclude, merge, allowed)

    def _shortlist(
        self, vectors: Tensor, k: int, exclude: Tensor | None, allowed: Tensor | None
    ) -> Tensor:
        """Different places [B, S] in ascending order, -1 for none."""
        b, interests, _ = vectors.shape
        ask = k + (0 if exclude is None else int((exclude >= 0).sum(1).max()))
        if allowed is not None:  # what is found is thinned out, and not evenly
            ask = 2 * ask * len(self) // int(allowed.sum())
        ask = min(len(self), ask)
        if hasattr(self._index, "hnsw"):
            self._index.hnsw.efSearch = max(64, 2 * ask)
        flat = vectors.reshape(b * interests, -1).contiguous().numpy()
        _, nearest = self._index.search(flat, ask)
        places = np.sort(nearest.reshape(b, interests * ask), axis=1)
        places[:, 1:][places[:, 1:] == places[:, :-1]] = -1
        shortlist = torch.from_numpy(np.sort(places, axis=1))
        hidden = shortlist < 0
        if allowed is not None:
            hidden |= ~allowed[shortlist.clamp(min=0)]
        if exclude is not None:
            base = torch.arange(b).unsqueeze(1) * (len(self) + 1)
            hidden |= torch.isin(shortlist + base, exclude.clamp(min=-1) + base) & (shortlist >= 0)
        shortlist = shortlist.masked_fill(hidden, -1)
        if allowed is not None and len(shortlist):  # what is left of a long list
            shortlist = shortlist.sort(dim=1, descending=True).values
            shortlist = shortlist[:, : max(k, int((shortlist >= 0).sum(1).max()))].flip(1)
        return shortlist

    def _add(self, vectors: Tensor) -> None:
        self._index.add(vectors.numpy())
