"""Where an item is shown, as numbers that a network mixes with what else it reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

PLACE_FEATURES = 8


class PlaceFeatures(nn.Module):
    """Of a place and of its distance from `last`, the place of what the user touched last: the
    place, one over it, whether it is the first; whether anything was touched, the distance, its
    sign, one over 1 + its size, and whether it is the next place.

    All are standardised over the rows of training, so that a row without a place, all 0, stands at
    the mean place.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, places: Tensor, last: Tensor) -> None:
        """`places` and `last` [n] are of training, 0 for none."""
        super().__init__()
        shown = places > 0
        told = _told(places[shown], last[shown]) if shown.any() else torch.zeros(1, PLACE_FEATURES)
        deviation, mean = torch.std_mean(told.double(), dim=0, correction=0)
        self.register_buffer("mean", mean.float())
        self.register_buffer("deviation", torch.where(deviation > 0, deviation, 1.0).float())

    def forward(self, places: Tensor, last: Tensor) -> Tensor:
        """[B, PLACE_FEATURES] of rows [B]."""
        told = (_told(places, last) - self.mean) / self.deviation
        return told * (places > 0).unsqueeze(1)


def _told(places: Tensor, last: Tensor) -> Tensor:
    touched = (last > 0).float()
    distance = (places - last) * touched
    return torch.stack(
        [
            places.float(),
            1 / places.clamp(min=1),
            (places == 1).float(),
            touched,
            distance,
            distance.sign(),
            touched / (1 + distance.abs()),
            (distance == 1).float(),
        ],
        dim=1,
    )
