"""BT2: a wider space whose first numbers are the old one, and whose others are free to learn.

Source: Zhou et al., "BT2: backward-compatible training with basis transformation", ICCV 2023.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.compatible.contract import Bridge, Learnt, Losses, OldItems, wider
from recsys.compatible.options import BasisTransformationConfig
from recsys.compatible.orthogonal import rotation_of

Parts = tuple[Tensor, Tensor, Tensor]


class BasisTransformation(Learnt):
    """What a tower says, f [width], becomes `z = [norm(f A), Q1 C norm(f)]`, whose first d_old
    numbers Q2 turns: those are compared with the old index, and all `extra + width` of them with
    vectors of the new model. Q1 and Q2 are rotations `exp(P)`: whatever the old space asks of the
    first numbers, what the model has learned of its own stays whole beside it.

    The loss is the model's own, over all numbers; `retrieval` weighs that of new queries over the
    old index, and `cosine` how far an item is from its old vector.
    """

    needs = "training of its own, vectors of items that both models know"

    def __init__(
        self, config: BasisTransformationConfig, old: OldItems, width: int, seed: int
    ) -> None:
        super().__init__(old)
        self.config, self.width = config, width
        d_old = old.vectors.shape[1]
        generator = torch.Generator().manual_seed(seed)
        self.head = nn.Parameter(torch.randn(width, config.extra, generator=generator) / width**0.5)
        self.first = nn.Parameter(torch.zeros(width, width))
        self.second = nn.Parameter(torch.zeros(d_old, d_old))

    @classmethod
    def make(
        cls, config: BasisTransformationConfig, old: OldItems, width: int, seed: int = 0
    ) -> Self:
        """A bridge that has learned nothing."""
        return cls(config, old, width, seed)

    def own_queries(self, vectors: Tensor) -> Tensor:
        """All numbers [..., extra + width], of unit length."""
        return _turned(vectors, self._parts(), self.config.scale)

    own_items = own_queries

    def asked(self, queries: Tensor) -> Tensor:
        """The first d_old numbers."""
        return queries[..., : self.old.shape[1]]

    def items(self, vectors: Tensor) -> Tensor:
        """The first d_old numbers."""
        return self.asked(vectors)

    def onward(self, vectors: Tensor) -> Tensor:
        """The old numbers, and zeros for those that the old model lacks."""
        return wider(vectors, self.config.extra + self.width)

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
        config, parts = self.config, self._parts()
        users, items, others = (
            _turned(vectors, parts, config.scale) for vectors in (queries, positives, negatives)
        )
        losses = own(users, items, others)
        if config.retrieval:
            losses = losses + config.retrieval * own(
                self.asked(users),
                self.gallery(targets, self.items(items)),
                self.gallery(drawn, self.items(others)),
            )
        if config.cosine:
            near = F.cosine_similarity(
                self.items(torch.cat([items, others])), self.old[torch.cat([targets, drawn])]
            )
            known = self.known[torch.cat([targets, drawn])]
            if known.any():
                losses = losses + config.cosine * (1 - near[known]).mean()
        return losses

    def settled(self) -> Bridge:
        """The head and both rotations, as matrices."""
        return _Settled(self._parts(), self.config.scale, self.old.shape[1])

    def _parts(self) -> Parts:
        return self.head, rotation_of(self.first), rotation_of(self.second)


def _turned(vectors: Tensor, parts: Parts, scale: float) -> Tensor:
    head, first, second = parts
    d_old = len(second)
    basis = (
        torch.cat(
            [
                F.normalize(vectors @ head, dim=-1),
                scale * F.normalize(vectors, dim=-1) @ first,
            ],
            dim=-1,
        )
        / (1 + scale**2) ** 0.5
    )
    return torch.cat([basis[..., :d_old] @ second, basis[..., d_old:]], dim=-1)


class _Settled(Bridge):
    head: Tensor
    first: Tensor
    second: Tensor

    def __init__(self, parts: Parts, scale: float, d_old: int) -> None:
        super().__init__()
        self.scale, self.d_old = scale, d_old
        for name, part in zip(("head", "first", "second"), parts, strict=True):
            self.register_buffer(name, part.detach().clone())

    def own_queries(self, vectors: Tensor) -> Tensor:
        return _turned(vectors, (self.head, self.first, self.second), self.scale)

    own_items = own_queries

    def asked(self, queries: Tensor) -> Tensor:
        return queries[..., : self.d_old]

    def items(self, vectors: Tensor) -> Tensor:
        return self.asked(vectors)

    def onward(self, vectors: Tensor) -> Tensor:
        return wider(vectors, self.head.shape[1] + self.head.shape[0])
