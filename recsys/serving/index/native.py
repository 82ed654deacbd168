"""Indices of FAISS that hold all that a search needs, so that item vectors may stay on the disk.

B users, K interests, D width, N items, A places asked for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from math import ceil, sqrt
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
from recsys.serving.index.short import FEW_ALLOWED, fill_short
from recsys.serving.index.sparse import merge_lists, shortlist_of

INDEX_FILE = "index.faiss"
_TRAINED_ON = 64, 200_000  # items a list, and at least: more move the centres by next to nothing
_ROUNDS = 10  # of k-means
_READ = 4  # items that lists hold at least for each that is asked for


class NativeIndex(Index):
    """What FAISS finds for every interest, with the scores that its codes give.

    Reads the vectors only where next to nothing is allowed, where it has found too few, and where
    interests are merged by quota.
    """

    on_disk = True

    def __init__(self, vectors: Tensor, space: str, config: Any, index: Any) -> None:
        super().__init__(vectors, space)
        self.config = config
        self._index = index

    @classmethod
    @abstractmethod
    def factory(cls, items: int, width: int, config: Any) -> str:
        """The string that FAISS makes the index of."""

    @abstractmethod
    def _parameters(self, ask: int, share: float, selector: dict[str, Any]) -> Any:
        """What FAISS searches with, for `ask` items where `share` of all are allowed."""

    @classmethod
    def build(cls, vectors: Tensor, space: str, config: Any) -> Self:
        """Raises ConfigError for options that FAISS cannot make an index of these vectors with."""
        import faiss

        items, width = vectors.shape
        try:
            index = faiss.index_factory(
                width, cls.factory(items, width, config), faiss.METRIC_INNER_PRODUCT
            )
            lists = _settle(index)
            few = max(lists * _TRAINED_ON[0], _TRAINED_ON[1])
            index.train(vectors[:: max(1, items // few)].contiguous().numpy())
            index.add(vectors.numpy())
        except RuntimeError as error:
            raise ConfigError(
                f"export.index: {config} cannot be made of {items} vectors of width {width}: "
                f"{reason_of(error)}"
            ) from None
        return cls(vectors, space, config, index)

    @classmethod
    def load(cls, file: Callable[[str], Path], vectors: Tensor, space: str, config: Any) -> Self:
        """Read `index.faiss`. Raises DataError when it cannot be read, or is of another kind."""
        index = read_faiss(file(INDEX_FILE), vectors)
        opened = cls(vectors, space, config, index)
        try:
            opened._parameters(1, 1.0, {})
        except (AttributeError, RuntimeError):
            raise DataError(f"{file(INDEX_FILE)} is no index of kind {config.kind!r}") from None
        return opened

    def save(self, folder: Path) -> None:
        """Write `index.faiss`."""
        import faiss

        super().save(folder)
        faiss.write_index(self._index, str(folder / INDEX_FILE))

    @property
    def bytes(self) -> int:
        """Of what FAISS keeps in memory; the vectors stay on the disk."""
        import faiss

        return int(faiss.serialize_index(self._index).nbytes)

    def searched_with(self, config: Any) -> Self:
        """The same index, with the effort of other options of its kind."""
        other = type(self)(self.vectors, self.space, config, self._index)
        other.live = self.live
        return other

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
        pairs = None if exclude is None else Pairs.of_padded(exclude, padding=-1)
        ask = k
        if pairs is not None and len(pairs.users):
            ask += int(pairs.counts(len(vectors)).max())
        scores, places = self._nearest(vectors, weights, min(ask, len(self)), allowed)
        if pairs is not None:
            flat = places.flatten(1)
            hidden = (pairs.contains(flat.clamp(min=0)) & (flat >= 0)).view_as(places)
            scores = scores.masked_fill(hidden, float("-inf"))
            places = places.masked_fill(hidden, -1)
        k = min(k, len(self))
        if merge.by_lists or vectors.shape[1] == 1:
            answer = merge_lists(scores, places, weights, k, merge)
        else:
            shortlist = shortlist_of(places)
            answer = rank_shortlist(shortlist, vectors, weights, self.vectors, k, merge)
        return fill_short(answer, self.vectors, vectors, weights, k, exclude, merge, allowed)

    def _nearest(
        self, vectors: Tensor, weights: Tensor, ask: int, allowed: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(scores [B, K, A], places [B, K, A]) of each interest alone, -1 for none."""
        import faiss

        present = weights > 0
        if ask and allowed is None and bool(present.all()):  # most searches: nothing to fill in
            flat = vectors.flatten(0, 1).contiguous().numpy()
            near, there = self._index.search(flat, ask, params=self._parameters(ask, 1.0, {}))
            shape = (*present.shape, ask)
            places = torch.from_numpy(there).view(shape)
            return torch.from_numpy(near).view(shape).masked_fill(places < 0, float("-inf")), places
        scores = vectors.new_full((*present.shape, ask), float("-inf"))
        places = torch.full(scores.shape, -1)
        share, selector = 1.0, {}
        if allowed is not None:
            share = max(1, int(allowed.sum())) / len(self)
            bits = np.packbits(allowed.numpy(), bitorder="little")
            selector = {"sel": faiss.IDSelectorBitmap(bits)}
        if ask and present.any():
            wanted = vectors[present].contiguous().numpy()
            with_these = self._parameters(ask, share, selector)
            near, there = self._index.search(wanted, ask, params=with_these)
            there = torch.from_numpy(there)
            scores[present] = torch.from_numpy(near).masked_fill(there < 0, float("-inf"))
            places[present] = there
        return scores, places

    def _add(self, vectors: Tensor) -> None:
        self._index.add(vectors.contiguous().numpy())


def lists_of(items: int, lists: int | None) -> int:
    """How many lists there are: as many as asked for, or so many that comparing a query with all
    centres costs what reading four lists costs."""
    return lists or max(1, min(round(2 * sqrt(items)), items // 16))


def probes_of(index: Any, probes: int, ask: int, share: float) -> int:
    """How many lists are read: more where few of their items are allowed, or many are asked for."""
    least = _READ * ask * index.nlist / max(1, index.ntotal)
    return min(index.nlist, max(1, ceil(max(probes, least) / share)))


def read_faiss(path: Path, vectors: Tensor) -> Any:
    """An index of FAISS over as many vectors of the same width. Raises DataError otherwise."""
    import faiss

    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if (index.ntotal, index.d) != tuple(vectors.shape):
        raise DataError(
            f"{path} is of {index.ntotal} vectors of width {index.d}, the bundle's are "
            f"{list(vectors.shape)}: export it again"
        )
    return index


def reason_of(error: RuntimeError) -> str:
    """What FAISS says, without where in its source."""
    return " ".join(str(error).split()).rpartition(".cpp:")[2]


def _settle(index: Any) -> int:
    """Set how k-means is to go about it; returns the lists of an index, 1 where it has none."""
    import faiss

    inner = faiss.downcast_index(index.base_index if hasattr(index, "base_index") else index)
    if not hasattr(inner, "nlist"):
        return 1
    for clustering in (inner.cp, *([inner.pq.cp] if hasattr(inner, "pq") else [])):
        clustering.min_points_per_centroid = 1  # or it writes a warning
    inner.cp.niter = _ROUNDS
    inner.cp.max_points_per_centroid = _TRAINED_ON[0]
    return int(inner.nlist)
