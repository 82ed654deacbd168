"""Frozen index: a new user tower learns to find items where the old index has them."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.compatible.contract import Bridge, Learnt, LinearBridge, Losses, OldItems, eye
from recsys.compatible.options import FrozenIndexConfig


class FrozenIndex(Learnt):
    """The old space is the new one: the model's loss over the old items' vectors, which do not
    move. Items that the old index lacks learn their place in it, from the item tower.
    """

    needs = "training of its own"
    isometric = True
    moves_items = False

    def __init__(self, old: OldItems, width: int) -> None:
        super().__init__(old)
        d_old = old.vectors.shape[1]
        self.of_users = nn.Parameter(eye(width, d_old))
        self.of_items = nn.Parameter(eye(width, d_old))

    @classmethod
    def make(cls, config: FrozenIndexConfig, old: OldItems, width: int, seed: int = 0) -> Self:
        """A bridge that has learned nothing."""
        return cls(old, width)

    def own_queries(self, vectors: Tensor) -> Tensor:
        """What the user tower says, of as many numbers as the index has."""
        return F.normalize(vectors @ self.of_users, dim=-1)

    def own_items(self, vectors: Tensor) -> Tensor:
        """What the item tower says, likewise."""
        return F.normalize(vectors @ self.of_items, dim=-1)

    def asked(self, queries: Tensor) -> Tensor:
        """As they are."""
        return queries

    def items(self, vectors: Tensor) -> Tensor:
        """As they are."""
        return vectors

    def onward(self, vectors: Tensor) -> Tensor:
        """As they are."""
        return vectors

    def losses(
        self,
        own: Losses,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        drawn: Tensor,
    ) -> Tensor:
        """The model's own loss, with the old index in the stead of its items."""
        return own(
            self.own_queries(queries),
            self.gallery(targets, self.own_items(positives)),
            self.gallery(drawn, self.own_items(negatives)),
        )

    def settled(self) -> Bridge:
        """Two matrices in front of a space that is the old one."""
        return _Settled(self.of_users, self.of_items)


class _Settled(LinearBridge):
    of_users: Tensor
    of_items: Tensor
    isometric = True
    moves_items = False

    def __init__(self, of_users: Tensor, of_items: Tensor) -> None:
        same = torch.eye(of_users.shape[1])
        super().__init__(same, same)
        self.register_buffer("of_users", of_users.detach().clone())
        self.register_buffer("of_items", of_items.detach().clone())

    def own_queries(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors @ self.of_users, dim=-1)

    def own_items(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors @ self.of_items, dim=-1)
