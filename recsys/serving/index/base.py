"""The contract of indices. B users, K interests, D width, N items, S places of a shortlist."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from feature_store.errors import DataError
from recsys.lists.merging import BY_SCORE, Merge


class Queries(NamedTuple):
    """What users look for: vectors [B, K, D] and weights [B, K] of interests, and the space that
    the vectors live in."""

    vectors: Tensor
    weights: Tensor
    space: str


class Index(ABC):
    """Places of items by inner product with a query; `vectors` are the items' own [N, D].

    Knows the space that its vectors live in, and refuses those of another. `on_disk` says whether a
    search seldom reads the vectors, so that they may be mapped from a file.
    """

    on_disk: ClassVar[bool] = False

    def __init__(self, vectors: Tensor, space: str) -> None:
        self.vectors = vectors
        self.space = space
        self.live: Tensor | None = None  # bool [N], where items were removed

    @classmethod
    @abstractmethod
    def build(cls, vectors: Tensor, space: str, config: Any) -> Self:
        """An index over `vectors` [N, D]. Raises ConfigError where they cannot be searched so."""

    @classmethod
    @abstractmethod
    def load(cls, file: Callable[[str], Path], vectors: Tensor, space: str, config: Any) -> Self:
        """What `save` wrote; `file` gives the path of a name. Raises DataError when it cannot be
        read."""

    def search(
        self,
        queries: Queries,
        k: int,
        exclude: Tensor | None = None,
        merge: Merge = BY_SCORE,
        allowed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(scores [B, k], places [B, k]); `exclude` [B, L] is padded with -1, and so are the
        places; see `recsys.lists.search`. `allowed`, bool [N], says which places anybody of the
        batch may get: k of them are found wherever so many are left.

        Raises DataError for queries of another space, and for a mask of another length.
        """
        self._refuse_another(queries.space)
        if allowed is not None and (allowed.dtype != torch.bool or allowed.shape != (len(self),)):
            raise DataError(
                f"allowed is {allowed.dtype} {list(allowed.shape)}, and must be torch.bool "
                f"[{len(self)}]: one for each item of the index"
            )
        if self.live is not None:
            allowed = self.live if allowed is None else allowed & self.live
        return self._search(queries.vectors, queries.weights, k, exclude, merge, allowed)

    def __len__(self) -> int:
        """N, removed items among them."""
        return len(self.vectors)

    def add(self, vectors: Tensor, space: str) -> None:
        """Append items [n, D]; their places follow those that are there.

        Raises DataError for vectors of another space.
        """
        self._refuse_another(space)
        self.vectors = torch.cat([self.vectors, vectors])
        if self.live is not None:
            self.live = torch.cat([self.live, self.live.new_ones(len(vectors))])
        self._add(vectors)

    def remove(self, places: Tensor) -> None:
        """Never answer the items at `places` [n] again; the others keep their places.

        Raises DataError for a place that is not there.
        """
        outside = (places < 0) | (places >= len(self))
        if outside.any():
            raise DataError(
                f"there is no item at place {int(places[outside][0])} of an index of {len(self)}"
            )
        self.live = torch.ones(len(self), dtype=torch.bool) if self.live is None else self.live
        self.live[places] = False

    def save(self, folder: Path) -> None:
        """Write what `load` reads besides the vectors.

        Raises DataError where items were removed: they would be there again.
        """
        if self.live is not None:
            raise DataError(
                f"{int((~self.live).sum())} items were removed from this index: build one without "
                "them to save it"
            )

    @property
    def bytes(self) -> int:
        """Of all that a search needs in memory."""
        return self.vectors.nbytes

    def searched_with(self, config: Any) -> Self:
        """The same index, with the effort of other options of its kind."""
        return self

    @abstractmethod
    def _search(
        self,
        vectors: Tensor,
        weights: Tensor,
        k: int,
        exclude: Tensor | None,
        merge: Merge,
        allowed: Tensor | None,
    ) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _add(self, vectors: Tensor) -> None: ...

    def _refuse_another(self, space: str) -> None:
        if space != self.space:
            raise DataError(
                f"vectors of space {space} cannot be compared with items of space {self.space}: "
                "ask with the user program that was trained with these items"
            )


def rank_shortlist(
    shortlist: Tensor, queries: Tensor, weights: Tensor, items: Tensor, k: int, merge: Merge
) -> tuple[Tensor, Tensor]:
    """The k best of the places in a shortlist [B, S], -1 is none, by the items' vectors [N, D]."""
    listed = items[shortlist.clamp(min=0)]  # [B, S, D]
    scores = torch.einsum("bkd,bsd->bks", queries, listed)
    scores = scores.masked_fill(weights.unsqueeze(2) <= 0, float("-inf"))
    scores = scores.masked_fill((shortlist < 0).unsqueeze(1), float("-inf"))
    values, order = merge.top_k(scores, weights, k)
    return values, shortlist.gather(1, order).masked_fill(values == float("-inf"), -1)
