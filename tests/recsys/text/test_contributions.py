"""What words add to a score: hand-computed games, and sums that are exact."""

from __future__ import annotations

from itertools import permutations
from math import factorial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.text.contributions import contributions


def test_words_of_a_linear_model_add_what_they_weigh() -> None:
    weights = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, -1.0]])
    other = torch.tensor([2.0, 1.0])
    made = contributions(lambda kept: 0.5 + kept.float() @ weights, other, 3, orders=2)
    assert made.base == pytest.approx(1.5)
    assert made.words.tolist() == pytest.approx([2.0, 2.0, 5.0])


def test_words_that_count_only_together_share_it() -> None:
    def both(kept: Tensor) -> Tensor:
        return (kept[:, 0] & kept[:, 1]).float().unsqueeze(1)

    made = contributions(both, torch.ones(1), 3, orders=2)
    assert made.words.tolist() == pytest.approx([0.5, 0.5, 0.0])


@settings(max_examples=30)
@given(st.integers(0, 5), st.integers(0, 1000))
def test_the_sum_is_the_score_whatever_the_model(words: int, seed: int) -> None:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(words, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
    other = torch.randn(3)

    def vectors(kept: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.nn.functional.normalize(model(kept.float()), dim=1)

    made = contributions(vectors, other, words, seed=seed)
    whole = float(vectors(torch.ones(1, words, dtype=torch.bool)) @ other)
    assert made.base + float(made.words.sum()) == pytest.approx(whole, abs=1e-5)


def test_many_orders_come_to_the_average_over_all() -> None:
    torch.manual_seed(0)
    worth = torch.rand(2, 2, 2, 2)  # of every set of four words

    def value(kept: Tensor) -> Tensor:
        return worth[tuple(kept.long().T)].unsqueeze(1)

    expected = torch.zeros(4)
    for order in permutations(range(4)):
        kept = torch.zeros(1, 4, dtype=torch.bool)
        for word in order:
            before = value(kept)
            kept[0, word] = True
            expected[word] += float(value(kept) - before) / factorial(4)
    made = contributions(value, torch.ones(1), 4, orders=2000)
    assert made.words.tolist() == pytest.approx(expected.tolist(), abs=0.03)
