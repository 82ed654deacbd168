"""Lists of items for a batch of requests, side by side. B requests, k places of a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_NONE = (float("-inf"), -1, 0)


class Listed(NamedTuple):
    """Lists of k items, best first: scores [B, k], places [B, k], -1 for none, and the `origins`
    [B, k] of each, see `recsys.serving.origins`."""

    scores: Tensor
    places: Tensor
    origins: Tensor

    def with_places(self, scores: Tensor, places: Tensor) -> Listed:
        """Other lists [B, j] of the same items, and what is known of those."""
        columns = (places.unsqueeze(2) == self.places.unsqueeze(1)).byte().argmax(2)
        return Listed(scores, places, self.origins.gather(1, columns).masked_fill(places < 0, 0))


def stacked(lists: Sequence[Listed]) -> Listed:
    """The lists of several batches, one below the other; shorter ones end with none."""
    width = max(part.places.shape[1] for part in lists)
    columns = []
    for values, none in zip(zip(*lists, strict=True), _NONE, strict=True):
        filled = [
            torch.nn.functional.pad(of, (0, width - of.shape[1]), value=none) for of in values
        ]
        columns.append(torch.cat(filled))
    return Listed(*columns)


def merged(rows: Tensor, these: Listed, others: Listed) -> Listed:
    """The lists of `these` for the `rows` [B] that are true, in their order, and of `others` for
    the rest."""
    order = torch.empty(len(rows), dtype=torch.int64)
    order[rows] = torch.arange(len(these.places))
    order[~rows] = torch.arange(len(others.places)) + len(these.places)
    return Listed(*(column[order] for column in stacked([these, others])))
