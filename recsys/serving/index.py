"""Index: exact or FAISS search behind the same verbs; refuses vectors of another space."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from feature_store.errors import ConfigError, DataError
from recsys.lists.merging import Merge, merged_top_k
from recsys.lists.search import search
from recsys.serving.options import IndexConfig

_UNIT_SLACK = 1e-3


class Index(Protocol):
    """Places of items by inner product with a query."""

    space: str
    vectors: Tensor

    def search(
        self,
        queries: Tensor,
        weights: Tensor,
        k: int,
        exclude: Tensor | None,
        space: str,
        merge: Merge = "score",
    ) -> tuple[Tensor, Tensor]:
        """(scores [B, k], places [B, k]); see `recsys.lists.search`."""

    def add(self, vectors: Tensor, space: str) -> None:
        """Append items [n, D]; their places follow those that are there."""

    def save(self, folder: Path) -> None:
        """Write what `load` reads."""


def _check(own: str, other: str) -> None:
    if own != other:
        raise DataError(
            f"vectors of space {other} cannot be compared with an index of space {own}: "
            "use the user tower and the items of the same bundle"
        )


def _ranked(
    shortlist: Tensor, queries: Tensor, weights: Tensor, vectors: Tensor, k: int, merge: Merge
) -> tuple[Tensor, Tensor]:
    """The k best of the places in a shortlist [B, S], -1 is none, by whole vectors [N, D]."""
    items = vectors[shortlist.clamp(min=0)]  # [B, S, D]
    scores = torch.einsum("bkd,bsd->bks", queries, items)
    scores = scores.masked_fill(weights.unsqueeze(2) <= 0, float("-inf"))
    scores = scores.masked_fill((shortlist < 0).unsqueeze(1), float("-inf"))
    values, order = merged_top_k(scores, weights, k, merge)
    return values, shortlist.gather(1, order).masked_fill(values == float("-inf"), -1)


class ExactIndex:
    """All inner products: the evaluator's own search."""

    def __init__(self, vectors: Tensor, space: str) -> None:
        self.vectors = vectors
        self.space = space

    def search(
        self,
        queries: Tensor,
        weights: Tensor,
        k: int,
        exclude: Tensor | None,
        space: str,
        merge: Merge = "score",
    ) -> tuple[Tensor, Tensor]:
        """Exact search over all items."""
        _check(self.space, space)
        return search(queries, weights, self.vectors, k, exclude, merge)

    def add(self, vectors: Tensor, space: str) -> None:
        """Append items."""
        _check(self.space, space)
        self.vectors = torch.cat([self.vectors, vectors])

    def save(self, folder: Path) -> None:
        """The vectors themselves lie in the bundle: nothing to write."""


class FaissIndex:
    """Approximate search; asks for more than k where items are excluded or interests overlap."""

    def __init__(self, vectors: Tensor, space: str, factory: str, index: Any = None) -> None:
        import faiss

        self.vectors = vectors
        self.space = space
        self.factory = factory
        if index is None:
            try:
                index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
                index.train(vectors.numpy())
            except RuntimeError as error:
                reason = " ".join(str(error).split()).rpartition(".cpp:")[2]
                raise ConfigError(
                    f"export.index.factory = {factory!r} cannot be made of {len(vectors)} vectors "
                    f"of width {vectors.shape[1]}: {reason}"
                ) from None
            index.add(vectors.numpy())
        self._index = index

    def search(
        self,
        queries: Tensor,
        weights: Tensor,
        k: int,
        exclude: Tensor | None,
        space: str,
        merge: Merge = "score",
    ) -> tuple[Tensor, Tensor]:
        """Shortlists of every interest, re-scored exactly on the stored vectors."""
        _check(self.space, space)
        b, interests, _ = queries.shape
        excluded = 0 if exclude is None else int((exclude >= 0).sum(1).max())
        ask = min(len(self.vectors), k + excluded)
        if hasattr(self._index, "hnsw"):
            self._index.hnsw.efSearch = max(64, 2 * ask)
        flat = queries.reshape(b * interests, -1).contiguous().numpy()
        _, found = self._index.search(flat, ask)  # type: ignore[attr-defined]
        places = np.sort(found.reshape(b, interests * ask), axis=1)
        places[:, 1:][places[:, 1:] == places[:, :-1]] = -1
        shortlist = torch.from_numpy(np.sort(places, axis=1))
        hidden = shortlist < 0
        if exclude is not None:
            base = torch.arange(b).unsqueeze(1) * (len(self.vectors) + 1)
            hidden |= torch.isin(shortlist + base, exclude.clamp(min=-1) + base) & (shortlist >= 0)
        shortlist = shortlist.masked_fill(hidden, -1)
        return _ranked(shortlist, queries, weights, self.vectors, k, merge)

    def add(self, vectors: Tensor, space: str) -> None:
        """Append items."""
        _check(self.space, space)
        self.vectors = torch.cat([self.vectors, vectors])
        self._index.add(vectors.numpy())  # type: ignore[attr-defined]

    def save(self, folder: Path) -> None:
        """Write `index.faiss`."""
        import faiss

        faiss.write_index(self._index, str(folder / "index.faiss"))


class PrefixIndex(ExactIndex):
    """Exact search by the first `width` numbers of nested vectors, for a shortlist that the whole
    vectors rank: width / D of the multiplications, and D / width as many items in a cache."""

    def __init__(self, vectors: Tensor, space: str, width: int, shortlist: int) -> None:
        super().__init__(vectors, space)
        self.width, self.shortlist = width, shortlist
        # of unit vectors prefixes are compared as unit vectors, too: as they were trained
        self._units = bool((vectors.norm(dim=1) - 1).abs().amax() < _UNIT_SLACK)
        self._short = self._cut(vectors)

    def search(
        self,
        queries: Tensor,
        weights: Tensor,
        k: int,
        exclude: Tensor | None,
        space: str,
        merge: Merge = "score",
    ) -> tuple[Tensor, Tensor]:
        """The k best of a shortlist of at least k items."""
        _check(self.space, space)
        ask = max(k, self.shortlist)
        _, short = search(self._cut(queries), weights, self._short, ask, exclude, merge)
        return _ranked(short, queries, weights, self.vectors, k, merge)

    def add(self, vectors: Tensor, space: str) -> None:
        """Append items."""
        super().add(vectors, space)
        self._short = torch.cat([self._short, self._cut(vectors)])

    def _cut(self, vectors: Tensor) -> Tensor:
        cut = vectors[..., : self.width]
        return torch.nn.functional.normalize(cut, dim=-1) if self._units else cut.contiguous()


def build_index(vectors: Tensor, space: str, config: IndexConfig) -> Index:
    """An index over item vectors [N, D], or unit vectors as in `recsys.lists.search`.

    Raises ConfigError where the items are unit vectors and the index is not exact.
    """
    if config.kind == "exact":
        return ExactIndex(vectors, space)
    if vectors.dim() == 1:
        raise ConfigError(
            f"export.index.kind = {config.kind!r} searches item vectors, and this retriever scores "
            "all items without them: set export.index.kind = 'exact'"
        )
    if config.kind == "prefix":
        return PrefixIndex(vectors, space, config.prefix, config.shortlist)
    return FaissIndex(vectors, space, config.factory)


def load_index(folder: Path, vectors: Tensor, space: str, config: IndexConfig) -> Index:
    """The index that was saved in a bundle. Raises DataError when it cannot be read."""
    if config.kind != "faiss":
        return build_index(vectors, space, config)
    import faiss

    try:
        index = faiss.read_index(str(folder / "index.faiss"))
    except RuntimeError as error:
        raise DataError(f"{folder}/index.faiss cannot be read: {error}") from None
    return FaissIndex(vectors, space, config.factory, index)


def recall_against_exact(index: Index, queries: Tensor, k: int = 100) -> float:
    """Share of the exact top k of `queries` [B, K, D] that the index finds."""
    k = min(k, len(index.vectors))
    weights = torch.ones(queries.shape[:2])
    _, exact = search(queries, weights, index.vectors, k)
    _, found = index.search(queries, weights, k, None, index.space)
    rows = torch.arange(len(queries)).unsqueeze(1) * (len(index.vectors) + 1)
    return float(torch.isin(exact + rows, found + rows).double().mean())
