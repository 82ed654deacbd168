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
from recsys.lists.pairs import Pairs
from recsys.lists.search import search
from recsys.serving.index.base import Index, rank_shortlist
from recsys.serving.index.options import FaissConfig

_FILE = "index.faiss"
FEW_ALLOWED = 20  # one item in so many: all of them are compared


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
        values, places = rank_shortlist(shortlist, vectors, weights, self.vectors, k, merge)
        short = self._short_of(places, weights, k, exclude, allowed)
        if short.any():
            rows = short.nonzero().squeeze(1)
            hidden = None if exclude is None else exclude[rows]
            values[rows], places[rows] = search(
                vectors[rows], weights[rows], self.vectors, k, hidden, merge, allowed
            )
        return values, places

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

    def _short_of(
        self,
        places: Tensor,
        weights: Tensor,
        k: int,
        exclude: Tensor | None,
        allowed: Tensor | None,
    ) -> Tensor:
        """Whether fewer than the k that are there were found for each of B users."""
        left = len(self) if allowed is None else int(allowed.sum())
        wanted = torch.full((len(places),), left)
        if exclude is not None:
            pairs = Pairs.of_padded(exclude, padding=-1)
            if allowed is not None:
                pairs = pairs.where(allowed[pairs.items])
            once = (pairs.users * len(self) + pairs.items).unique() // len(self)
            wanted -= torch.bincount(once, minlength=len(places))
        wanted = wanted.clamp(max=k).masked_fill((weights <= 0).all(1), 0)
        return (places >= 0).sum(1) < wanted

    def _add(self, vectors: Tensor) -> None:
        self._index.add(vectors.numpy())
