"""The local activation unit against the formula, one pair of item and event at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from recsys.layers.deep import Activation
from recsys.layers.local_activation import LocalActivation

B, M, L, WIDTH = 3, 2, 4, 5
KEPT = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]).bool()


def unit(*, softmax: bool, activation: Activation = "relu") -> LocalActivation:
    torch.manual_seed(1)
    attention = LocalActivation(WIDTH, (6, 3), activation, softmax=softmax)
    for slopes in attention.activations.parameters():
        nn.init.uniform_(slopes)
    return attention


def activated(activation: nn.Module, x: Tensor) -> Tensor:
    """Of single channels [C]."""
    slopes = getattr(activation, "weight", 0.0)
    return torch.where(x > 0, x, slopes * x)


def by_pairs(unit: LocalActivation, queries: Tensor, keys: Tensor, kept: Tensor) -> Tensor:
    """Every pair by itself, through a first layer over [q, k, q - k, q * k].

    What is linear in q and k lies in the weights of any of q, k and q - k: here all three.
    """
    apart = torch.randn(6, WIDTH)
    first = torch.cat(
        [
            unit.of_query.weight - apart,
            unit.of_key + apart,
            apart,
            unit.of_product,
        ],
        dim=1,
    )
    pooled = torch.zeros_like(queries)
    for b in range(len(queries)):
        events = keys[b][kept[b]]
        for m in range(queries.shape[1]):
            scores = []
            for event in events:
                query = queries[b, m]
                x = torch.cat([query, event, query - event, query * event])
                x = activated(unit.activations[0], first @ x + unit.of_query.bias)
                scores.append(unit.last(activated(unit.activations[1], unit.layers[0](x))))
            if scores:
                weights = torch.cat(scores)
                weights = weights.softmax(0) if unit.softmax else weights
                pooled[b, m] = weights @ events
    return pooled


@pytest.mark.parametrize("activation", ["relu", "prelu"])
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("count", [1, M, L + 1])  # fewer than events, and more
def test_it_sums_events_by_what_the_network_says_of_each_pair(
    softmax: bool, activation: Activation, count: int
) -> None:
    attention = unit(softmax=softmax, activation=activation)
    queries, keys = torch.randn(B, count, WIDTH), torch.randn(B, L, WIDTH)
    expected = by_pairs(attention, queries, keys, KEPT)
    torch.testing.assert_close(attention(queries, keys, KEPT), expected, atol=1e-5, rtol=1e-4)
    assert (expected[:2] != 0).all() and (expected[2] == 0).all()


@pytest.mark.parametrize("softmax", [False, True])
def test_what_is_padded_has_no_part(softmax: bool) -> None:
    attention = unit(softmax=softmax)
    queries, keys = torch.randn(B, M, WIDTH), torch.randn(B, L, WIDTH)
    other = torch.where(KEPT.unsqueeze(2), keys, 1e3)
    torch.testing.assert_close(attention(queries, other, KEPT), attention(queries, keys, KEPT))


@pytest.mark.parametrize("count", [M, L + 1])  # fewer than events, and more
def test_it_answers_as_it_learns(count: int) -> None:
    """Where nothing is learned the first layer is made in another way. Three sizes of layers."""
    torch.manual_seed(1)
    attention = LocalActivation(WIDTH, (6, 4, 3), "relu", softmax=False)
    queries, keys = torch.randn(B, count, WIDTH), torch.randn(B, L, WIDTH)
    learning = attention(queries, keys, KEPT)
    with torch.no_grad():
        torch.testing.assert_close(attention(queries, keys, KEPT), learning)
    assert learning.shape == (B, count, WIDTH) and (learning[:2] != 0).all()
