"""BT2: a wider space whose first numbers are the old one, and whose others are free to learn.

Source: Zhou et al., "BT2: backward-compatible training with basis transformation", ICCV 2023.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.compatible.contract import Bridge, Learnt, Losses, OldItems, Paired, eye, wider
from recsys.compatible.hidden import Hidden
from recsys.compatible.options import BasisTransformationConfig
from recsys.compatible.orthogonal import rotation_of

_ITEMS = 1024  # of a step's that are held to their old vectors, spread over all of them


class BasisTransformation(Learnt):
    """What a tower says, f [width], becomes `z = [norm(h(f)), Q1 C norm(f)]`, whose first d_old
    numbers Q2 turns: those are compared with the old index, and all `extra + width` of them with
    vectors of the new model. `h` is a matrix and a hidden layer; Q1 and Q2 are rotations `exp(P)`.

    The model learns by its own loss of f. Of z learn h and the rotations alone: `retrieval` weighs
    the loss of new queries over the old index, and `cosine` how far an item is from its old vector.
    Published is a gradient through f as well, and a term that holds f to a twin trained without.
    """

    needs = "training of its own, vectors of items that both models know"

    def __init__(
        self, config: BasisTransformationConfig, old: OldItems, width: int, seed: int
    ) -> None:
        super().__init__(old)
        self.config = config
        d_old = old.vectors.shape[1]
        extra = config.extra or d_old
        self.head = nn.Parameter(eye(width, extra))
        self.hidden = Hidden(width, config.hidden, extra, seed)
        # nothing would be learned where the old space borrows nothing
        self.first = nn.Parameter(torch.zeros(width, width)) if extra < d_old else None
        self.second = nn.Parameter(torch.zeros(d_old, d_old))

    @classmethod
    def make(
        cls, config: BasisTransformationConfig, old: OldItems, width: int, seed: int = 0
    ) -> Self:
        """A bridge that has learned nothing."""
        return cls(config, old, width, seed)

    def own_queries(self, vectors: Tensor) -> Tensor:
        """All numbers [..., extra + width], of unit length."""
        return self._basis()(vectors)

    own_items = own_queries

    def asked(self, queries: Tensor) -> Tensor:
        """The first d_old numbers."""
        return queries[..., : self.old.shape[1]]

    def items(self, vectors: Tensor) -> Tensor:
        """The first d_old numbers."""
        return self.asked(vectors)

    def onward(self, vectors: Tensor) -> Tensor:
        """The old numbers, and zeros for those that the old model lacks."""
        return wider(vectors, sum(self.head.shape))

    def losses(
        self,
        own: Losses,
        queries: Tensor,
        positives: Tensor,
        negatives: Tensor,
        targets: Tensor,
        drawn: Tensor,
    ) -> Tensor:
        """The three of them."""
        config, basis = self.config, self._basis()
        losses = own(queries, positives, negatives)
        if config.retrieval:
            losses = losses + config.retrieval * own(
                self.asked(basis(queries.detach())),
                self._standing(targets, positives, basis),
                self._standing(drawn, negatives, basis),
            )
        rows, vectors = torch.cat([targets, drawn]), torch.cat([positives, negatives]).detach()
        spread = slice(None, None, -(-len(rows) // _ITEMS))
        return losses + config.cosine * self.apart(self.asked(basis(vectors[spread])), rows[spread])

    @torch.no_grad()
    def _standing(self, rows: Tensor, vectors: Tensor, basis: _Basis) -> Tensor:
        """Old vectors [n, d_old] of item rows [n], and where those stand that the old index lacks;
        of those alone, of which there are few."""
        standing, lacking = self.old[rows], ~self.known[rows]
        if lacking.any():
            standing[lacking] = self.asked(basis(vectors[lacking]))
        return standing

    def settled(self, paired: Paired) -> Bridge:
        """The head and the rotations, as they are."""
        return _Settled(self._basis(), self.old.shape[1])

    def _basis(self) -> _Basis:
        first = None if self.first is None else rotation_of(self.first)
        return _Basis(self.head, self.hidden, first, rotation_of(self.second), self.config.scale)


class _Basis(NamedTuple):
    """h as a matrix and a layer, the rotations Q1, None for none, and Q2, and C."""

    head: Tensor
    hidden: Hidden
    first: Tensor | None
    second: Tensor
    scale: float

    def __call__(self, vectors: Tensor) -> Tensor:
        """Vectors f [..., width] -> z [..., extra + width]."""
        d_old, own = len(self.second), F.normalize(vectors, dim=-1)
        if self.first is not None:
            own = own @ self.first
        head = F.normalize(vectors @ self.head + self.hidden(vectors), dim=-1)
        whole = torch.cat([head, self.scale * own], dim=-1) / (1 + self.scale**2) ** 0.5
        return torch.cat([whole[..., :d_old] @ self.second, whole[..., d_old:]], dim=-1)


class _Settled(Bridge):
    head: Tensor
    first: Tensor | None
    second: Tensor

    def __init__(self, basis: _Basis, d_old: int) -> None:
        super().__init__()
        self.scale, self.d_old = basis.scale, d_old
        self.hidden = basis.hidden.settled()
        for name in ("head", "first", "second"):
            part = getattr(basis, name)
            self.register_buffer(name, None if part is None else part.detach().clone())

    def own_queries(self, vectors: Tensor) -> Tensor:
        return _Basis(self.head, self.hidden, self.first, self.second, self.scale)(vectors)

    own_items = own_queries

    def asked(self, queries: Tensor) -> Tensor:
        return queries[..., : self.d_old]

    def items(self, vectors: Tensor) -> Tensor:
        return self.asked(vectors)

    def onward(self, vectors: Tensor) -> Tensor:
        return wider(vectors, sum(self.head.shape))
