"""Vectors spread to places: against what autograd makes of indices and a mask."""

from __future__ import annotations

import torch

from recsys.layers.spread import Spread


def test_values_and_gradients_are_those_of_the_formula() -> None:
    """Of a vector that stands in several places, in one, in places that are not kept, nowhere."""
    random = torch.Generator().manual_seed(0)
    vectors = torch.randn(5, 3, generator=random, dtype=torch.float64, requires_grad=True)
    places = torch.tensor([2, 0, 2, 4, 2, 3, 0])
    kept = torch.tensor([True, True, True, True, False, False, True])
    expected = vectors[places] * kept.unsqueeze(1)
    spread = Spread.apply(vectors, places, kept)
    assert torch.equal(spread, expected)
    of_outputs = torch.randn(7, 3, generator=random, dtype=torch.float64)
    (wanted,) = torch.autograd.grad(expected, vectors, of_outputs)
    (got,) = torch.autograd.grad(spread, vectors, of_outputs)
    torch.testing.assert_close(got, wanted)


def test_an_infinite_vector_does_not_reach_where_it_is_not_kept() -> None:
    spread = Spread.apply(torch.tensor([[torch.inf]]), torch.tensor([0]), torch.tensor([False]))
    assert spread.item() == 0
