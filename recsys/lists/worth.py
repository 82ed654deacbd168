"""What items bring when they are bought."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Worth = Literal["revenue", "profit"]


def worth(what: Worth, prices: Tensor, costs: Tensor | None) -> Tensor:
    """The price of each item [...], or that less its cost, in float64; 0 where the price, or of a
    profit the cost, is not known, which is said by 0.

    Raises ValueError where there are no costs, and profit is asked for.
    """
    if what == "revenue":
        return prices.double()
    if costs is None:
        raise ValueError("profit needs costs")
    both = (prices > 0) & (costs > 0)
    return torch.where(both, prices.double() - costs.double(), 0.0)
