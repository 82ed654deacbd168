"""Which items belong to which user of a batch: pairs, and membership by user."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# Sets up to this wide are compared one by one, wider ones searched.
NARROW = 8


class Pairs(NamedTuple):
    """P pairs of a user [P], its row in the batch, ascending, and an item [P].

    Long and short lists lie side by side without padding.
    """

    users: Tensor
    items: Tensor

    @classmethod
    def of_lists(cls, values: Tensor, lengths: Tensor) -> Pairs:
        """From lists as values [sum of lengths] and lengths [B]; zeros are no items."""
        users = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        return cls(users, values).where(values != 0)

    @classmethod
    def of_padded(cls, lists: Tensor, padding: int = 0) -> Pairs:
        """From lists [B, L]."""
        users, columns = (lists != padding).nonzero(as_tuple=True)
        return cls(users, lists[users, columns])

    def where(self, kept: Tensor) -> Pairs:
        """The pairs for which `kept` [P] holds."""
        return self if kept.all() else Pairs(self.users[kept], self.items[kept])

    def counts(self, users: int) -> Tensor:
        """Pairs of each user [B]."""
        return torch.bincount(self.users, minlength=users)

    def contains(self, values: Tensor) -> Tensor:
        """Whether each of `values` [B, L] is paired with its row's user; all are >= 0."""
        paired = torch.zeros_like(values, dtype=torch.bool)
        if not len(self.items):
            return paired
        if values.shape[1] <= NARROW:
            pairs, columns = (values[self.users] == self.items.unsqueeze(1)).nonzero(as_tuple=True)
            paired[self.users[pairs], columns] = True
            return paired
        base = int(max(self.items.max(), values.max())) + 1
        rows = torch.arange(len(values), device=values.device).unsqueeze(1)
        return _among(_sorted(self.users * base + self.items), rows * base + values)


def contains(sets: Tensor, values: Tensor) -> Tensor:
    """Whether each of `values` [B, L] is among its row's `sets` [B, M]."""
    if sets.shape[1] <= NARROW:
        return (values.unsqueeze(2) == sets.unsqueeze(1)).any(2)
    return _among(_sorted(sets), values.to(sets.dtype))


def _among(ordered: Tensor, values: Tensor) -> Tensor:
    """Whether values [..., L] are in `ordered` [..., M]."""
    positions = torch.searchsorted(ordered, values.contiguous()).clamp_(max=ordered.shape[-1] - 1)
    nearest = ordered[positions] if ordered.dim() == 1 else ordered.gather(1, positions)
    return nearest == values


def _sorted(values: Tensor) -> Tensor:
    """Values [..., M] in ascending order; numpy's sort is vectorised, and torch's is not."""
    if values.is_cuda:
        return values.sort(dim=-1).values
    return torch.from_numpy(np.sort(values.numpy(), axis=-1))
