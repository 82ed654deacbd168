"""All inner products: the evaluator's own search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from torch import Tensor

from recsys.lists.merging import Merge
from recsys.lists.search import search
from recsys.serving.index.base import Index
from recsys.serving.index.options import ExactConfig


class ExactIndex(Index):
    """Compares every item with a query; items may be places [N] of the 1 in unit vectors, too."""

    @classmethod
    def build(cls, vectors: Tensor, space: str, config: ExactConfig) -> Self:
        """Needs nothing but the vectors."""
        return cls(vectors, space)

    @classmethod
    def load(
        cls, file: Callable[[str], Path], vectors: Tensor, space: str, config: ExactConfig
    ) -> Self:
        """Needs nothing but the vectors."""
        return cls(vectors, space)

    def _search(
        self,
        vectors: Tensor,
        weights: Tensor,
        k: int,
        exclude: Tensor | None,
        merge: Merge,
        allowed: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        return search(vectors, weights, self.vectors, k, exclude, merge, allowed)

    def _add(self, vectors: Tensor) -> None:
        """The vectors are all there is."""
