"""What a method of upgrading is: how vectors of a new model meet those of an old one.

n items, q requests, P targets, N item rows, d_old and d_new: numbers of a vector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Losses = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Losses [P] of queries [P, D], positives [P, D] and negatives [n, D], as the model learns."""


class Paired(NamedTuple):
    """The same things in both spaces: `old_items` [n, d_old] and `new_items` [n, d_new], in one
    order; and, where both models answered the same requests, queries [q, d_old] and [q, d_new]."""

    old_items: Tensor
    new_items: Tensor
    old_queries: Tensor | None = None
    new_queries: Tensor | None = None

    @property
    def all(self) -> tuple[Tensor, Tensor]:
        """Items and queries together, in the old space and in the new one, of unit length: what is
        fitted are directions, and lengths stay with the vectors."""
        old, new = [self.old_items], [self.new_items]
        if self.old_queries is not None and self.new_queries is not None:
            old.append(self.old_queries)
            new.append(self.new_queries)
        return F.normalize(torch.cat(old), dim=1), F.normalize(torch.cat(new), dim=1)


class OldItems(NamedTuple):
    """Vectors [N, d_old] of the old index by item row of the new model, and which [N] it has."""

    vectors: Tensor
    known: Tensor


class Bridge(nn.Module, ABC):
    """Between the space of an old model and that of a new one. Maps act on the last dimension.

    The new model's vectors are its own, as `own_queries` and `own_items` make them of what its
    towers say; by default as they are. Of those, `asked` is what a new query asks the old index,
    and `items` is where a new item stands in the old space. `onward` is where an old vector
    stands in the new space, and `stored` how it lies in the index that new queries ask: as it is,
    unless a method says otherwise. Maps of methods with `isometric` keep inner products.
    """

    isometric: ClassVar[bool] = False
    leaves_index: ClassVar[bool] = True
    """Whether the old index is asked as it lies there."""

    def own_queries(self, vectors: Tensor) -> Tensor:
        """Queries [..., d_new] of the new model's own space, of what its user tower says."""
        return vectors

    def own_items(self, vectors: Tensor) -> Tensor:
        """Items [..., d_new] of the new model's own space, of what its item tower says."""
        return vectors

    @abstractmethod
    def asked(self, queries: Tensor) -> Tensor:
        """New queries [..., d_new] as they ask the old index."""

    @abstractmethod
    def items(self, vectors: Tensor) -> Tensor:
        """New items [..., d_new] in the old space [..., d_old]."""

    @abstractmethod
    def onward(self, vectors: Tensor) -> Tensor:
        """Old vectors [..., d_old] in the new space [..., d_new]."""

    def stored(self, vectors: Tensor) -> Tensor:
        """Old items [..., d_old] as they lie in the index that new queries ask."""
        return vectors


class LinearBridge(Bridge):
    """Two matrices: `to_old` [d_new, d_old] and `to_new` [d_old, d_new], by default its
    pseudo-inverse."""

    to_old: Tensor
    to_new: Tensor

    def __init__(self, to_old: Tensor, to_new: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("to_old", to_old.detach().clone())
        to_new = torch.linalg.pinv(to_old.detach()) if to_new is None else to_new.detach().clone()
        self.register_buffer("to_new", to_new)

    def asked(self, queries: Tensor) -> Tensor:
        """By the matrix."""
        return queries @ self.to_old

    def items(self, vectors: Tensor) -> Tensor:
        """By the same one: a model's queries and items share their space."""
        return vectors @ self.to_old

    def onward(self, vectors: Tensor) -> Tensor:
        """By the other matrix."""
        return vectors @ self.to_new

    def after(self, earlier: LinearBridge) -> LinearBridge:
        """Over this bridge and then over an `earlier` one: of three versions, from the third into
        the first."""
        return LinearBridge(self.to_old @ earlier.to_old, earlier.to_new @ self.to_new)


class Rotation(LinearBridge):
    """An orthogonal matrix [D, D], D = max(d_old, d_new), where the narrower space ends in zeros.

    `turned` keeps every inner product; the old space is the first d_old numbers.
    """

    isometric = True
    rotation: Tensor

    def __init__(self, rotation: Tensor, d_new: int, d_old: int) -> None:
        to_old = rotation[:d_new, :d_old]
        super().__init__(to_old, to_old.T)
        self.register_buffer("rotation", rotation.detach().clone())

    def turned(self, vectors: Tensor) -> Tensor:
        """New vectors [..., d_new] beside old ones that end in zeros [..., D]."""
        return vectors @ self.rotation[: vectors.shape[-1]]


class Fitted(ABC):
    """A method that is fitted to two finished models, whose weights it leaves."""

    learns_with_model: ClassVar[bool] = False
    needs: ClassVar[str]
    """What it needs besides the old index, in words."""

    @classmethod
    @abstractmethod
    def fit(cls, config: Any, paired: Paired, seed: int = 0) -> Bridge:
        """The bridge over which a finished new model reaches the old index."""


class Learnt(Bridge, ABC):
    """A method whose bridge is learned together with the new model, by what it adds to the loss."""

    learns_with_model: ClassVar[bool] = True
    needs: ClassVar[str]
    old: Tensor
    known: Tensor

    def __init__(self, old: OldItems) -> None:
        super().__init__()
        # they are the old bundle's: no checkpoint holds them
        self.register_buffer("old", old.vectors, persistent=False)
        self.register_buffer("known", old.known, persistent=False)

    @classmethod
    @abstractmethod
    def make(cls, config: Any, old: OldItems, width: int, seed: int = 0) -> Self:
        """A bridge that has learned nothing, for towers that say `width` numbers."""

    @abstractmethod
    def losses(
        self,
        own: Losses,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        drawn: Tensor,
    ) -> Tensor:
        """Losses [P] in the stead of the model's `own`.

        Args:
            queries, positives: what the towers say [P, width] of users and of `targets` [P].
            negatives: [n, width] of the item rows `drawn` [n].
        """

    def users(self, queries: Tensor, old: Tensor) -> Tensor:
        """A further loss of queries [q, width] that the old model has answered, too: `old`
        [q, d_old]. By default none."""
        return queries.new_zeros(())

    asks_users: ClassVar[bool] = False
    """Whether `users` has a loss."""

    @abstractmethod
    def settled(self, paired: Paired) -> Bridge:
        """What was learned, as plain matrices; `paired` are the items as they are in the end."""

    def gallery(self, rows: Tensor, otherwise: Tensor) -> Tensor:
        """Old vectors [n, d_old] of item rows [n]; of items that the old index lacks what stands
        there `otherwise` [n, d_old]."""
        return torch.where(self.known[rows].unsqueeze(1), self.old[rows], otherwise)

    def apart(self, vectors: Tensor, rows: Tensor) -> Tensor:
        """How far vectors [n, d_old] are from the old ones of item rows [n] that the old index has:
        the mean of 1 - cosine."""
        known = self.known[rows]
        if not known.any():
            return vectors.new_zeros(())
        return (1 - F.cosine_similarity(vectors[known], self.old[rows[known]])).mean()


class LearntMatrix(Learnt, ABC):
    """A matrix [width, d_old] that is learned, at first one that keeps the first numbers; queries
    and items share it."""

    def __init__(self, old: OldItems, width: int) -> None:
        super().__init__(old)
        self.matrix = nn.Parameter(eye(width, old.vectors.shape[1]))

    def asked(self, queries: Tensor) -> Tensor:
        """By the matrix."""
        return queries @ self.matrix

    def items(self, vectors: Tensor) -> Tensor:
        """By the matrix."""
        return vectors @ self.matrix

    def onward(self, vectors: Tensor) -> Tensor:
        """By its pseudo-inverse."""
        return vectors @ torch.linalg.pinv(self.matrix)

    def settled(self, paired: Paired) -> LinearBridge:
        """The matrix, and its pseudo-inverse."""
        return LinearBridge(self.matrix)


def eye(width: int, other: int) -> Tensor:
    """A matrix [width, other] that keeps the first numbers."""
    return torch.eye(max(width, other))[:width, :other]


def wider(vectors: Tensor, width: int) -> Tensor:
    """Vectors [..., d] that end in zeros [..., width]."""
    return F.pad(vectors, (0, width - vectors.shape[-1]))
