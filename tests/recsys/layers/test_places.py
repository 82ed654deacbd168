"""What a history says of an item that it holds, and what a place adds, by hand."""

from __future__ import annotations

from math import log

import pytest
import torch

from recsys.layers.place_bias import PlaceBias
from recsys.layers.repeats import newest_ranks, repeats


def test_an_item_is_as_new_as_its_last_event_among_different_items() -> None:
    rows = torch.tensor([[5, 7, 5, 9, 9, 0], [3, 0, 0, 0, 0, 0]])
    ranks = newest_ranks(rows)
    assert ranks.tolist() == [[0, 3, 2, 0, 1, 0], [1, 0, 0, 0, 0, 0]]
    told = repeats(torch.tensor([[5, 9, 4, 0], [3, 5, 0, 3]]), rows, ranks)
    never, once = [0.0, 0.0, 0.0], [log(2), 1.0, 1.0]
    expected = [[[log(3), 1, 1 / 2], [log(3), 1, 1], never, never], [once, never, never, once]]
    torch.testing.assert_close(told, torch.tensor(expected))


def test_places_add_to_logits_by_their_distance_from_the_training_s_mean() -> None:
    places, last = torch.tensor([1, 2, 3, 0]), torch.tensor([2, 2, 0, 0])
    bias = PlaceBias(1, places, last)
    assert (bias(places, last) == 0).all()
    with torch.no_grad():
        bias.by_place[1:4, 0] = torch.tensor([4.0, 2.0, 1.0])
        bias.by_distance[49:52, 0] = torch.tensor([8.0, 0.0, 5.0])
    mean = ((4 + 8) + 2 + 1 + 0) / 4
    found = bias(torch.tensor([1, 2, 3, 3, 0]), torch.tensor([2, 2, 2, 0, 2]))[:, 0]
    assert found.detach().tolist() == pytest.approx([12 - mean, 2 - mean, 6 - mean, 1 - mean, 0])
    # nothing is learned of no place, and of the one that was touched last
    found[:4].square().sum().backward()
    assert bias.by_place.grad is not None and bias.by_distance.grad is not None
    assert bias.by_place.grad[:4, 0].ne(0).tolist() == [False, True, True, True]
    assert bias.by_distance.grad[49:52, 0].ne(0).tolist() == [True, False, True]
    assert bias(torch.tensor([1000]), torch.tensor([1])).isfinite().all()
