"""Numbers as models read them."""

from __future__ import annotations

import pytest
import torch

from recsys.layers.standardise import Standardise

NAN = float("nan")


def test_unknown_numbers_are_the_mean_of_the_known_ones() -> None:
    layer = Standardise({"price": torch.tensor([1.0, NAN, 3.0, NAN])})
    assert layer("price", torch.tensor([3.0, 0.0, NAN])).tolist() == [1.0, -2.0, 0.0]


def test_numbers_with_long_tails_are_read_as_logs() -> None:
    hundred = 10.0**2 - 1
    layer = Standardise({"price": torch.tensor([0.0, hundred, NAN])}, logs=["price"])
    asked = torch.tensor([10.0 - 1, hundred, -hundred, NAN])
    torch.testing.assert_close(layer("price", asked), torch.tensor([0.0, 1.0, -3.0, 0.0]))


def test_a_constant_keeps_its_scale_and_small_numbers_do_not() -> None:
    layer = Standardise({"same": torch.tensor([5.0, 5.0]), "small": torch.tensor([0.1, 0.3])})
    assert layer("same", torch.tensor([7.0])).tolist() == [2.0]
    torch.testing.assert_close(layer("small", torch.tensor([0.4])), torch.tensor([2.0]))


@pytest.mark.parametrize("values", [[NAN, NAN], [5.0, 5.0], []])
def test_nothing_known_or_a_constant_makes_no_nan(values: list[float]) -> None:
    layer = Standardise({"price": torch.tensor(values)})
    assert layer("price", torch.tensor([NAN, 5.0])).isfinite().all()
