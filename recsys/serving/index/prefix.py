"""A shortlist by the first numbers of nested vectors, which the whole vectors then rank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from recsys.lists.merging import Merge
from recsys.lists.search import search
from recsys.serving.index.base import Index, rank_shortlist
from recsys.serving.index.options import PrefixConfig

_UNIT_SLACK = 1e-3


class PrefixIndex(Index):
    """Exact search by the first `width` numbers, for at least `shortlist` items: width / D of the
    multiplications, and D / width as many items in a cache."""

    def __init__(self, vectors: Tensor, space: str, width: int, shortlist: int) -> None:
        super().__init__(vectors, space)
        self.width, self.shortlist = width, shortlist
        # of unit vectors prefixes are compared as unit vectors, too: as they were trained
        self._units = bool((vectors.norm(dim=1) - 1).abs().amax() < _UNIT_SLACK)
        self._short = self._cut(vectors)

    @classmethod
    def build(cls, vectors: Tensor, space: str, config: PrefixConfig) -> Self:
        """Cuts the vectors."""
        return cls(vectors, space, config.prefix, config.shortlist)

    @classmethod
    def load(
        cls, file: Callable[[str], Path], vectors: Tensor, space: str, config: PrefixConfig
    ) -> Self:
        """Cuts the vectors again."""
        return cls.build(vectors, space, config)

    @property
    def bytes(self) -> int:
        """Of the vectors and of their prefixes."""
        return self.vectors.nbytes + self._short.nbytes

    def searched_with(self, config: PrefixConfig) -> Self:
        """The same index with another shortlist, or of another prefix."""
        other = type(self)(self.vectors, self.space, config.prefix, config.shortlist)
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
        ask = max(k, self.shortlist)
        _, short = search(self._cut(vectors), weights, self._short, ask, exclude, merge, allowed)
        return rank_shortlist(short, vectors, weights, self.vectors, k, merge)

    def _add(self, vectors: Tensor) -> None:
        self._short = torch.cat([self._short, self._cut(vectors)])

    def _cut(self, vectors: Tensor) -> Tensor:
        cut = vectors[..., : self.width]
        return torch.nn.functional.normalize(cut, dim=-1) if self._units else cut.contiguous()
