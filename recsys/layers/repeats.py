"""How often and how lately a history holds the item that is asked for."""

from __future__ import annotations

import torch
from torch import Tensor

REPEATS = 3


def newest_ranks(rows: Tensor) -> Tensor:
    """Of item rows [B, L], oldest first and padded with 0, which is 1 for the newest item, 2 for
    the newest other, and so on [B, L]; 0 for an item that comes again later."""
    length = rows.shape[1]
    places = torch.arange(length, device=rows.device)
    later = places.unsqueeze(1) < places  # [L, L]
    again = ((rows.unsqueeze(2) == rows.unsqueeze(1)) & later).any(2)
    last = ((rows != 0) & ~again).float()
    return last.flip(1).cumsum(1).flip(1) * last


def repeats(items: Tensor, rows: Tensor, ranks: Tensor) -> Tensor:
    """[B, M, REPEATS] of items [B, M], item rows [B, L] of a history and their `newest_ranks`:
    `log(1 + count)`, whether it is there at all, and one over its rank."""
    same = (items.unsqueeze(2) == rows.unsqueeze(1)) & (rows != 0).unsqueeze(1)
    counts = same.sum(2).float()
    held = (counts > 0).float()
    ranked = (same * ranks.unsqueeze(1)).sum(2)
    return torch.stack([counts.log1p(), held, held / ranked.clamp(min=1)], dim=2)
