"""Lists that every interest has found for itself, merged to one.

B users, K interests, A places a list.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from recsys.lists.merging import Merge


def merge_lists(
    scores: Tensor, places: Tensor, weights: Tensor, k: int, merge: Merge
) -> tuple[Tensor, Tensor]:
    """(scores [B, k], places [B, k]) of interests' lists [B, K, A], -1 and -inf for none.

    What is on no list of an interest has no score with it. By a merge that is `by_lists` that is
    how all scores would be merged, if each list holds its interest's k best. Among equal scores the
    lower place wins.
    """
    flat, order = places.flatten(1).sort(dim=1, stable=True)
    if scores.shape[1] == 1:  # no item is on its list twice
        matrix = scores.gather(2, order.unsqueeze(1))
    else:
        matrix = _by_place(scores, flat, order)
    values, listed = merge.top_k(matrix, weights, k)
    listed = flat.gather(1, listed).masked_fill(values == float("-inf"), -1)
    missing = (0, k - values.shape[1])
    return pad(values, missing, value=float("-inf")), pad(listed, missing, value=-1)


def _by_place(scores: Tensor, flat: Tensor, order: Tensor) -> Tensor:
    """Scores [B, K, A] of interests' lists in the `order` of places [B, K * A]: all that is known
    of a place in the column where it is first."""
    users, interests, length = scores.shape
    first = ~_repeated(flat)
    columns = torch.arange(flat.shape[1])
    column = torch.where(first, columns, 0).cummax(1).values
    matrix = scores.new_full((users, interests, flat.shape[1]), float("-inf"))
    rows = torch.arange(users).unsqueeze(1)
    matrix[rows, order // max(1, length), column] = scores.flatten(1).gather(1, order)
    return matrix


def shortlist_of(places: Tensor) -> Tensor:
    """The different places [B, S] of interests' lists [B, K, A] in ascending order, -1 for none."""
    flat = places.flatten(1).sort(dim=1).values
    return flat.masked_fill(_repeated(flat), -1).sort(dim=1).values


def _repeated(ordered: Tensor) -> Tensor:
    """Whether each of a row's ascending values [B, S] is that before it."""
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return repeated
