"""What the place that an item is shown at adds to the logit of its being chosen."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PLACES = 50  # those further down are like the last of them


class PlaceBias(nn.Module):
    """`b[place] + c[place - last] - mean`, where `last` is the place of what the user touched last:
    people read on from there. What stands at that place itself is for the model to judge, so that
    c[0] is 0, as is c where nothing was touched.

    The mean is over the rows of training, so that a logit without its place is one at a place as
    they come. A shallow tower beside the model, as of Zhao et al., Recommending what video to watch
    next, RecSys 2019.
    """

    places: Tensor
    distances: Tensor

    def __init__(self, tasks: int, places: Tensor, last: Tensor) -> None:
        """For logits of so many tasks; `places` and `last` [n] are of training, 0 for none."""
        super().__init__()
        self.by_place = nn.Parameter(torch.zeros(_PLACES + 1, tasks))
        self.by_distance = nn.Parameter(torch.zeros(2 * _PLACES + 1, tasks))
        for name, rows, none, table in (
            ("places", _at(places), 0, self.by_place),
            ("distances", _distance(places, last), _PLACES, self.by_distance),
        ):
            shares = torch.bincount(rows, minlength=len(table)) / max(len(rows), 1)
            shares[none] = 0
            self.register_buffer(name, shares)

    def forward(self, places: Tensor, last: Tensor) -> Tensor:
        """[B, tasks] of rows [B]; 0 where a row has no place."""
        bias = F.embedding(_at(places), self.by_place, padding_idx=0)
        distance = _distance(places, last)
        bias = bias + F.embedding(distance, self.by_distance, padding_idx=_PLACES)
        mean = self.places @ self.by_place + self.distances @ self.by_distance
        return (bias - mean) * (places > 0).unsqueeze(1)


def _at(places: Tensor) -> Tensor:
    return places.clamp(0, _PLACES)


def _distance(places: Tensor, last: Tensor) -> Tensor:
    known = (places > 0) & (last > 0)
    return torch.where(known, (places - last).clamp(-_PLACES, _PLACES), 0) + _PLACES
