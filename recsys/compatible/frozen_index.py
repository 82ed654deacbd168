"""Frozen index: queries of a new model learn to find items where the old index has them."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.compatible.contract import (
    Bridge,
    Learnt,
    LinearBridge,
    Losses,
    OldItems,
    Paired,
    eye,
)
from recsys.compatible.hidden import Hidden
from recsys.compatible.options import FrozenIndexConfig


class FrozenIndex(Learnt):
    """The model learns by its own loss, as it would alone. Beside it a matrix and a hidden layer
    make queries of the old index of what its user tower says, by the same loss over the old
    vectors, which do not move; no gradient of it reaches the towers.

    Where items stand there is fitted when all is learned: by least squares to those that both
    know. A matrix that follows them from their first random vectors on does not get there.
    """

    needs = "training of its own, vectors of items that both models know"

    def __init__(self, config: FrozenIndexConfig, old: OldItems, width: int, seed: int) -> None:
        super().__init__(old)
        d_old = old.vectors.shape[1]
        self.of_users = nn.Parameter(eye(width, d_old))
        self.hidden = Hidden(width, config.hidden, d_old, seed)

    @classmethod
    def make(cls, config: FrozenIndexConfig, old: OldItems, width: int, seed: int = 0) -> Self:
        """A bridge that has learned nothing."""
        return cls(config, old, width, seed)

    def asked(self, queries: Tensor) -> Tensor:
        """By the matrix and the hidden layer, of unit length."""
        return F.normalize(queries @ self.of_users + self.hidden(queries), dim=-1)

    def items(self, vectors: Tensor) -> Tensor:
        """Nowhere as yet: they score 0 with everybody."""
        return vectors.new_zeros(*vectors.shape[:-1], self.old.shape[1])

    def onward(self, vectors: Tensor) -> Tensor:
        """Nowhere as yet."""
        return vectors.new_zeros(*vectors.shape[:-1], len(self.of_users))

    def losses(
        self,
        own: Losses,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        drawn: Tensor,
    ) -> Tensor:
        """The model's own loss, and that of its queries over the old index."""
        return own(queries, positives, negatives) + own(
            self.asked(queries.detach()),
            self.gallery(targets, self.items(positives)),
            self.gallery(drawn, self.items(negatives)),
        )

    def settled(self, paired: Paired) -> Bridge:
        """What was learned, and the matrix of the items."""
        old, new = paired.all
        return _Settled(self, torch.linalg.lstsq(new, old).solution)


class _Settled(LinearBridge):
    of_users: Tensor

    def __init__(self, learnt: FrozenIndex, of_items: Tensor) -> None:
        super().__init__(of_items)
        self.register_buffer("of_users", learnt.of_users.detach().clone())
        self.hidden = learnt.hidden.settled()

    def asked(self, queries: Tensor) -> Tensor:
        return F.normalize(queries @ self.of_users + self.hidden(queries), dim=-1)

    def items(self, vectors: Tensor) -> Tensor:
        return F.normalize(super().items(vectors), dim=-1)
