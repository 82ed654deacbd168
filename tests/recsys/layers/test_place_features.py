"""Places as a network reads them."""

from __future__ import annotations

import torch

from recsys.layers.place_features import PLACE_FEATURES, PlaceFeatures


def test_places_are_standardised_over_training_and_no_place_is_the_mean() -> None:
    places, last = torch.tensor([1, 2, 3, 4, 0]), torch.tensor([3, 3, 3, 0, 2])
    layer = PlaceFeatures(places, last)
    told = layer(places, last)
    assert told.shape == (5, PLACE_FEATURES) and told[4].eq(0).all()
    torch.testing.assert_close(told[:4].mean(0), torch.zeros(PLACE_FEATURES), atol=1e-6, rtol=0)
    spread = told[:4].std(0, correction=0)
    varies = torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 0])  # no place is the next one here
    torch.testing.assert_close(spread, varies)
    # at the place touched last the distance is 0; without one there is none
    raw = told * layer.deviation + layer.mean
    torch.testing.assert_close(raw[0], torch.tensor([1, 1, 1, 1, -2, -1, 1 / 3, 0]))
    torch.testing.assert_close(raw[2], torch.tensor([3, 1 / 3, 0, 1, 0, 0, 1, 0]))
    torch.testing.assert_close(raw[3], torch.tensor([4, 1 / 4, 0, 0, 0, 0, 0, 0]))
    after = layer(torch.tensor([4]), torch.tensor([3])) * layer.deviation + layer.mean
    torch.testing.assert_close(after[0], torch.tensor([4, 1 / 4, 0, 1, 1, 1, 1 / 2, 1]))
    assert PlaceFeatures(places * 0, last)(places, last).isfinite().all()
