"""BC-Aligner: a new model learns together with a matrix that brings its vectors into the old space.

Source: Hu et al., "Learning backward compatible embeddings", KDD 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from recsys.compatible.contract import LearntMatrix, Losses, OldItems
from recsys.compatible.options import AlignerConfig


class Aligner(LearntMatrix):
    """Adds `weight * mean((z_old - z_new B)^2)` over items, and over users that the old model was
    asked about, to the new model's loss; B [width, d_old] has no bias. `earlier` are the matrices
    over which the old space came from the ones before it: through each of them the residual is
    counted, too, and the mean taken, so that a chain of versions does not drift.
    """

    needs = "training of its own, vectors of items that both models know, queries of both"
    asks_users = True

    def __init__(
        self, config: AlignerConfig, old: OldItems, width: int, earlier: Sequence[Tensor] = ()
    ) -> None:
        super().__init__(old, width)
        self.config = config
        self.earlier = tuple(earlier)

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
        return cls(config, old, width, earlier)

    def losses(
        self,
        own: Losses,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        drawn: Tensor,
    ) -> Tensor:
        """The model's own loss and the penalty; with `retrieval` also the loss over the old
        index."""
        config = self.config
        losses = own(queries, positives, negatives)
        rows, vectors = torch.cat([targets, drawn]), torch.cat([positives, negatives])
        known = self.known[rows]
        losses = losses + config.weight * self._penalty(vectors[known], self.old[rows[known]])
        if config.retrieval:
            losses = losses + config.retrieval * own(
                self.asked(queries),
                self.gallery(targets, self.items(positives)),
                self.gallery(drawn, self.items(negatives)),
            )
        return losses

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
