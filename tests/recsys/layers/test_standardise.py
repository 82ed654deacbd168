"""Numbers as models read them."""

from __future__ import annotations

import pytest
import torch

from recsys.layers.standardise import Standardise

NAN = float("nan")


def test_unknown_numbers_are_the_mean_of_the_known_ones() -> None:
    layer = Standardise({"price": torch.tensor([1.0, NAN, 3.0, NAN])})
    assert layer("price", torch.tensor([3.0, 0.0, NAN])).tolist() == [1.0, -2.0, 0.0]


@pytest.mark.parametrize("values", [[NAN, NAN], [5.0, 5.0], []])
def test_nothing_known_or_a_constant_makes_no_nan(values: list[float]) -> None:
    layer = Standardise({"price": torch.tensor(values)})
    assert layer("price", torch.tensor([NAN, 5.0])).isfinite().all()
