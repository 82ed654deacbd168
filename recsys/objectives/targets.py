"""Which events of a history a step trains on, where that is not all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.embeddings.hashing import salt_of, splitmix64


def draw_targets(
    history: Tensor, count: int, *, longest: int, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Users [P] and positions [P], never the first, of at most `count` events of each history
    [B, T].

    By hashes of the history itself, of at most `longest` events, so that a user gets the same ones
    whichever process it is on, and whoever is beside it.
    """
    length = history.shape[1]
    columns = torch.arange(length, device=history.device)
    draw = salt_of("targets", seed, step)
    key = splitmix64(history * longest + columns, draw)
    key = key.masked_fill(history == 0, 0).sum(1, keepdim=True)
    order = splitmix64(key + columns, draw)
    order = order.masked_fill((history == 0) | (columns == 0), torch.iinfo(order.dtype).max)
    chosen = order.topk(min(count, length), dim=1, largest=False).indices.sort(dim=1).values
    kept = (history.gather(1, chosen) != 0) & (chosen > 0)
    users, _ = kept.nonzero(as_tuple=True)
    return users, chosen[kept]
