"""BC-Aligner: a new model learns together with a matrix that brings its vectors into the old space.

Source: Hu et al., "Learning backward compatible embeddings", KDD 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.compatible.contract import LearntMatrix, LinearBridge, Losses, OldItems, Paired
from recsys.compatible.hidden import Hidden
from recsys.compatible.options import AlignerConfig


class Aligner(LearntMatrix):
    """Adds `weight * mean((z_old - z_new B)^2)` over items, and over users that the old model was
    asked about, to the new model's loss; B [width, d_old] has no bias. `earlier` are the matrices
    over which the old space came from the ones before it: through each of them the residual is
    counted, too, and the mean taken, so that a chain of versions does not drift.

    With `retrieval` a hidden layer, beside B, corrects queries of the old index: by the model's own
    loss over the old vectors, of which neither the towers nor B learn anything.
    """

    needs = "training of its own, vectors of items that both models know, queries of both"
    asks_users = True

    def __init__(
        self,
        config: AlignerConfig,
        old: OldItems,
        width: int,
        seed: int = 0,
        earlier: Sequence[Tensor] = (),
    ) -> None:
        super().__init__(old, width)
        self.config = config
        self.earlier = tuple(earlier)
        self.hidden = None
        if config.retrieval:
            self.hidden = Hidden(width, config.hidden, old.vectors.shape[1], seed)

    @classmethod
    def make(
        cls,
        config: AlignerConfig,
        old: OldItems,
        width: int,
        seed: int = 0,
        earlier: Sequence[Tensor] = (),
    ) -> Self:
        """A bridge that has learned nothing."""
        return cls(config, old, width, seed, earlier)

    def losses(
        self,
        own: Losses,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        drawn: Tensor,
    ) -> Tensor:
        """The model's own loss and the penalty; with `retrieval` also that of the corrected queries
        over the old index."""
        config = self.config
        losses = own(queries, positives, negatives)
        rows, vectors = torch.cat([targets, drawn]), torch.cat([positives, negatives])
        known = self.known[rows]
        losses = losses + config.weight * self._penalty(vectors[known], self.old[rows[known]])
        if self.hidden is not None:
            matrix = self.matrix.detach()
            losses = losses + config.retrieval * own(
                _corrected(queries.detach(), matrix, self.hidden),
                self.gallery(targets, positives.detach() @ matrix),
                self.gallery(drawn, negatives.detach() @ matrix),
            )
        return losses

    def asked(self, queries: Tensor) -> Tensor:
        """By the matrix, corrected."""
        return _corrected(queries, self.matrix, self.hidden)

    def settled(self, paired: Paired) -> LinearBridge:
        """The matrix, its pseudo-inverse, and the layer."""
        if self.hidden is None:
            return super().settled(paired)
        return _Settled(self.matrix, self.hidden)

    def users(self, queries: Tensor, old: Tensor) -> Tensor:
        """The penalty of users."""
        return self.config.weight * self._penalty(queries, old)

    def _penalty(self, vectors: Tensor, old: Tensor) -> Tensor:
        if not len(vectors):
            return vectors.new_zeros(())
        residual = old - vectors @ self.matrix
        terms = [residual.square().mean()]
        for matrix in self.earlier:
            residual = residual @ matrix
            terms.append(residual.square().mean())
        return torch.stack(terms).mean()


def _corrected(queries: Tensor, matrix: Tensor, hidden: Hidden | None) -> Tensor:
    mapped = queries @ matrix
    return mapped if hidden is None else F.normalize(mapped + hidden(queries), dim=-1)


class _Settled(LinearBridge):
    def __init__(self, matrix: Tensor, hidden: Hidden) -> None:
        super().__init__(matrix)
        self.hidden = hidden.settled()

    def asked(self, queries: Tensor) -> Tensor:
        return _corrected(queries, self.to_old, self.hidden)
