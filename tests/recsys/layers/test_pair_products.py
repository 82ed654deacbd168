"""Products of events with weights of their own for each item: against what autograd makes of the
formula, in more requests than fit into a part."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recsys.layers.pair_products import PairProducts


@pytest.mark.parametrize(("requests", "items"), [(67, 1), (5, 3), (2, 70)])
def test_values_and_gradients_are_those_of_the_formula(requests: int, items: int) -> None:
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=random, dtype=torch.float64)
        return values.requires_grad_()

    queries, keys = drawn(requests, items, 4), drawn(requests, 3, 4)
    weights = drawn(2, 4), drawn(2, 4)
    constant = drawn(requests, items, 2)
    given = (queries, keys, *weights, constant)
    made = weights[0] + weights[1] * queries.unsqueeze(2)  # [B, M, H, I]
    expected = torch.einsum("bli,bmhi->blmh", keys, made) + constant.unsqueeze(1)
    found = PairProducts.apply(*given)
    torch.testing.assert_close(found, expected)
    of_outputs = torch.randn(found.shape, generator=random, dtype=torch.float64)
    gradients = torch.autograd.grad(found, given, of_outputs)
    for got, wanted in zip(
        gradients, torch.autograd.grad(expected, given, of_outputs), strict=True
    ):
        torch.testing.assert_close(got, wanted)
