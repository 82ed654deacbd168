"""Approximate search by FAISS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from feature_store.errors import ConfigError, DataError
from recsys.lists.merging import Merge
from recsys.serving.index.base import Index, rank_shortlist
from recsys.serving.index.options import FaissConfig

_FILE = "index.faiss"


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
            reason = " ".join(str(error).split()).rpartition(".cpp:")[2]
            raise ConfigError(
                f"export.index.factory = {config.factory!r} cannot be made of {len(vectors)} "
                f"vectors of width {width}: {reason}"
            ) from None
        index.add(vectors.numpy())
        return cls(vectors, space, index)

    @classmethod
    def load(
        cls, file: Callable[[str], Path], vectors: Tensor, space: str, config: FaissConfig
    ) -> Self:
        """Read `index.faiss`. Raises DataError when it cannot be read."""
        import faiss

        path = file(_FILE)
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
        if (index.ntotal, index.d) != tuple(vectors.shape):
            raise DataError(
                f"{path} is of {index.ntotal} vectors of width {index.d}, the bundle's are "
                f"{list(vectors.shape)}: export it again"
            )
        return cls(vectors, space, index)

    def save(self, folder: Path) -> None:
        """Write `index.faiss`."""
        import faiss

        faiss.write_index(self._index, str(folder / _FILE))

    def _search(
        self, vectors: Tensor, weights: Tensor, k: int, exclude: Tensor | None, merge: Merge
    ) -> tuple[Tensor, Tensor]:
        b, interests, _ = vectors.shape
        excluded = 0 if exclude is None else int((exclude >= 0).sum(1).max())
        ask = min(len(self.vectors), k + excluded)
        if hasattr(self._index, "hnsw"):
            self._index.hnsw.efSearch = max(64, 2 * ask)
        flat = vectors.reshape(b * interests, -1).contiguous().numpy()
        _, nearest = self._index.search(flat, ask)
        places = np.sort(nearest.reshape(b, interests * ask), axis=1)
        places[:, 1:][places[:, 1:] == places[:, :-1]] = -1
        shortlist = torch.from_numpy(np.sort(places, axis=1))
        hidden = shortlist < 0
        if exclude is not None:
            base = torch.arange(b).unsqueeze(1) * (len(self.vectors) + 1)
            hidden |= torch.isin(shortlist + base, exclude.clamp(min=-1) + base) & (shortlist >= 0)
        shortlist = shortlist.masked_fill(hidden, -1)
        return rank_shortlist(shortlist, vectors, weights, self.vectors, k, merge)

    def _add(self, vectors: Tensor) -> None:
        self._index.add(vectors.numpy())
