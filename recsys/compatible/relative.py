"""Relative representations: vectors described by how they lie to anchors that both models know.

k anchors, d numbers of a vector. Source: Moschella et al., "Relative representations enable
zero-shot latent space communication", ICLR 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.compatible.contract import Bridge, Fitted, Paired
from recsys.compatible.options import RelativeConfig


class RelativeBridge(Bridge):
    """Cosines to the same anchors in each space [k, d]; centred first where means were kept, and
    whitened where the matrices [k, k] are not None.

    The index that is asked holds the old items as the old anchors describe them: they are computed
    of the old vectors, and no model is asked again.
    """

    leaves_index = False
    old_basis: Tensor
    new_basis: Tensor
    old_mean: Tensor
    new_mean: Tensor

    def __init__(
        self, old: Tensor, new: Tensor, old_mean: Tensor, new_mean: Tensor, *, unit: bool
    ) -> None:
        """`old` [d_old, k] and `new` [d_new, k] turn centred unit vectors into descriptions."""
        super().__init__()
        self.unit = unit
        for name, tensor in {
            "old_basis": old,
            "new_basis": new,
            "old_mean": old_mean,
            "new_mean": new_mean,
        }.items():
            self.register_buffer(name, tensor.detach().clone())

    def asked(self, queries: Tensor) -> Tensor:
        """New queries relative to the new anchors [..., k]."""
        return self._described(queries, self.new_mean, self.new_basis)

    def items(self, vectors: Tensor) -> Tensor:
        """The old unit vectors [..., d_old] that have nearly the description of the new ones."""
        return _pointing(self.asked(vectors) @ torch.linalg.pinv(self.old_basis), self.old_mean)

    def stored(self, vectors: Tensor) -> Tensor:
        """Old vectors relative to the old anchors [..., k]."""
        return self._described(vectors, self.old_mean, self.old_basis)

    def onward(self, vectors: Tensor) -> Tensor:
        """The new unit vectors [..., d_new] that have nearly the description of the old ones."""
        return _pointing(self.stored(vectors) @ torch.linalg.pinv(self.new_basis), self.new_mean)

    def _described(self, vectors: Tensor, mean: Tensor, basis: Tensor) -> Tensor:
        described = F.normalize(vectors - mean, dim=-1) @ basis
        return F.normalize(described, dim=-1) if self.unit else described


def _pointing(directions: Tensor, mean: Tensor) -> Tensor:
    """The unit vectors [..., d] that lie in these directions [..., d] from a mean within the unit
    ball."""
    directions = F.normalize(directions, dim=-1)
    ahead = (directions * mean).sum(-1, keepdim=True)
    return mean + ((ahead.square() + 1 - mean.square().sum()).sqrt() - ahead) * directions


class Relative(Fitted):
    """Nothing is trained: anchors are chosen among the items, and each space describes its own."""

    needs = "vectors of anchors: some items that both models know"

    @classmethod
    def fit(cls, config: RelativeConfig, paired: Paired, seed: int = 0) -> RelativeBridge:
        """Choose the anchors in the old space."""
        chosen = choose_anchors(F.normalize(paired.old_items, dim=1), config, seed)
        old, old_mean = _anchors(paired.old_items, chosen, config.centre)
        new, new_mean = _anchors(paired.new_items, chosen, config.centre)
        if config.whiten:
            old, new = whitened(old, config.whiten), whitened(new, config.whiten)
        return RelativeBridge(old.T, new.T, old_mean, new_mean, unit=config.normalise)


def whitened(anchors: Tensor, power: float) -> Tensor:
    """Anchors [k, d] with their singular values to the power `1 - power`: with 1 descriptions of
    one space have the inner products of its vectors, however unevenly anchors lie."""
    left, values, right = torch.linalg.svd(anchors, full_matrices=False)
    kept = values > values[0] * 1e-5
    powers = torch.where(kept, values.clamp(min=1e-12) ** (1 - power), 0.0)
    return (left * powers) @ right


def choose_anchors(items: Tensor, config: RelativeConfig, seed: int = 0) -> Tensor:
    """Places [k] of anchors among unit vectors [n, d]: `random` ones, each `farthest` from those
    before it, or the nearest to the middle of one of k `clusters`."""
    count = min(config.anchors, len(items))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(len(items), generator=generator)
    if config.choice == "random":
        return drawn[:count].sort().values
    if config.choice == "farthest":
        return _farthest(items, count, int(drawn[0]))
    return _nearest_to_centres(items, items[drawn[:count]])


def _farthest(items: Tensor, count: int, first: int) -> Tensor:
    chosen = [first]
    nearest = items @ items[first]
    for _ in range(count - 1):
        nearest[chosen[-1]] = float("inf")
        chosen.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, items @ items[chosen[-1]])
    return torch.tensor(chosen).sort().values


def _nearest_to_centres(items: Tensor, centres: Tensor, rounds: int = 10) -> Tensor:
    """Spherical k-means, and the item nearest to each centre; an item is an anchor once."""
    for _ in range(rounds):
        cluster = (items @ centres.T).argmax(1)
        sums = torch.zeros_like(centres).index_add_(0, cluster, items)
        filled = sums.norm(dim=1, keepdim=True) > 0
        centres = torch.where(filled, F.normalize(sums, dim=1), centres)
    return (items @ centres.T).argmax(0).unique()


def _anchors(items: Tensor, chosen: Tensor, centre: bool) -> tuple[Tensor, Tensor]:
    """Unit vectors [k, d] of the anchors, and the mean [d] that is taken from every vector."""
    mean = items.mean(0) if centre else torch.zeros_like(items[0])
    return F.normalize(items[chosen] - mean, dim=1), mean
