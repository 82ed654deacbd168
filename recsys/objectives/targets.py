"""Which events of a history a step trains on, where that is not all of them; and how often each
item is one, over all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from feature_store.columns import HISTORY, TARGET
from recsys.data.examples import Examples
from recsys.embeddings.hashing import salt_of, splitmix64


def draw_targets(
    history: Tensor,
    count: int,
    *,
    longest: int,
    seed: int,
    step: int,
    second_half: bool = False,
) -> tuple[Tensor, Tensor]:
    """Users [P] and positions [P], never the first, of at most `count` events of each history
    [B, T]; of the `second_half` alone they are at (n - 1) // 2 or behind it, of n events.

    By hashes of the history itself, of at most `longest` events, so that a user gets the same ones
    whichever process it is on, and whoever is beside it.
    """
    length = history.shape[1]
    columns = torch.arange(length, device=history.device)
    draw = salt_of("targets", seed, step)
    key = splitmix64(history * longest + columns, draw)
    key = key.masked_fill(history == 0, 0).sum(1, keepdim=True)
    order = splitmix64(key + columns, draw)
    first = torch.ones_like(key)
    if second_half:
        first = (((history != 0).sum(1, keepdim=True) - 1) // 2).clamp(min=1)
    order = order.masked_fill((history == 0) | (columns < first), torch.iinfo(order.dtype).max)
    chosen = order.topk(min(count, length), dim=1, largest=False).indices.sort(dim=1).values
    kept = (history.gather(1, chosen) != 0) & (chosen >= first)
    users, _ = kept.nonzero(as_tuple=True)
    return users, chosen[kept]


def targets_of_events(examples: Examples) -> Tensor:
    """How many rows of events have each item as their target [N]."""
    return examples.training_ids(TARGET).bincount(minlength=examples.num_items).double()


def targets_of_sequences(examples: Examples, longest: int, count: int | None = None) -> Tensor:
    """How many targets of an epoch are expected to be each item [N]: of the last `longest` events
    of a sequence, all but the first, or `count` of them, drawn alike."""
    total = torch.zeros(examples.num_items, dtype=torch.float64)
    for history in examples.training_lists(HISTORY, longest):
        targets = (history.lengths - 1).clamp(min=1)
        chance = torch.ones_like(targets, dtype=torch.float64)
        if count is not None:
            chance = (count / targets.double()).clamp(max=1)
        weights = chance.repeat_interleave(history.lengths)
        weights[history.offsets[:-1]] = 0  # none of them is empty
        total += history.values.bincount(weights, minlength=len(total))
    total[0] = 0
    return total
