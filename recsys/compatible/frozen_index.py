"""Frozen index: queries of a new model learn to find items where the old index has them."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.compatible.contract import Bridge, Learnt, LinearBridge, Losses, OldItems, eye
from recsys.compatible.hidden import Hidden
from recsys.compatible.options import FrozenIndexConfig


class FrozenIndex(Learnt):
    """The model learns by its own loss, as it would alone. Beside it a matrix and a hidden layer
    make queries of the old index of what its user tower says, by the same loss over the old
    vectors, which do not move; and a matrix says where its items stand there, by the cosine to
    those that both know alone: items that the old index lacks are hardly ever what is looked for,
    and as negatives they would push all others away. No gradient of either reaches the towers.
    """

    needs = "training of its own"

    def __init__(self, config: FrozenIndexConfig, old: OldItems, width: int, seed: int) -> None:
        super().__init__(old)
        d_old = old.vectors.shape[1]
        self.of_users = nn.Parameter(eye(width, d_old))
        self.of_items = nn.Parameter(eye(width, d_old))
        self.hidden = Hidden(width, config.hidden, d_old, seed)

    @classmethod
    def make(cls, config: FrozenIndexConfig, old: OldItems, width: int, seed: int = 0) -> Self:
        """A bridge that has learned nothing."""
        return cls(config, old, width, seed)

    def asked(self, queries: Tensor) -> Tensor:
        """By the matrix and the hidden layer, of unit length."""
        return F.normalize(queries @ self.of_users + self.hidden(queries), dim=-1)

    def items(self, vectors: Tensor) -> Tensor:
        """By the other matrix, likewise."""
        return F.normalize(vectors @ self.of_items, dim=-1)

    def onward(self, vectors: Tensor) -> Tensor:
        """By its pseudo-inverse."""
        return vectors @ torch.linalg.pinv(self.of_items)

    def losses(
        self,
        own: Losses,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        drawn: Tensor,
    ) -> Tensor:
        """The model's own loss, that of its queries over the old index, and the items' cosine."""
        losses = own(queries, positives, negatives)
        right, others = self.items(positives.detach()), self.items(negatives.detach())
        losses = losses + own(
            self.asked(queries.detach()),
            self.gallery(targets, right.detach()),
            self.gallery(drawn, others.detach()),
        )
        return losses + self.apart(torch.cat([right, others]), torch.cat([targets, drawn]))

    def settled(self) -> Bridge:
        """Two matrices, and the layer."""
        return _Settled(self)


class _Settled(LinearBridge):
    of_users: Tensor

    def __init__(self, learnt: FrozenIndex) -> None:
        super().__init__(learnt.of_items)
        self.register_buffer("of_users", learnt.of_users.detach().clone())
        self.hidden = learnt.hidden.settled()

    def asked(self, queries: Tensor) -> Tensor:
        return F.normalize(queries @ self.of_users + self.hidden(queries), dim=-1)

    def items(self, vectors: Tensor) -> Tensor:
        return F.normalize(super().items(vectors), dim=-1)
