"""The softmax over shown lists, by hand."""

from __future__ import annotations

from math import exp, log

import pytest
import torch

from recsys.objectives.listwise import list_softmax


def test_a_list_loses_by_how_unlikely_its_choice_was() -> None:
    logits = torch.tensor([1.0, 7.0, 2.0, 90.0, 0.0, 5.0, 4.0, 3.0], requires_grad=True)
    labels = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    # list 5 is rows 0, 2, 4; all of list 8 was chosen and nothing of list 9; the rest was in none
    lists = torch.tensor([5, 8, 5, 9, 5, 0, 0, 8])
    total, count = list_softmax(logits, labels, lists)
    of_all = log(exp(1) + exp(2) + exp(0))
    assert count == 1
    assert total.item() == pytest.approx(((of_all - 1) + (of_all - 0)) / 2, rel=1e-6)
    total.backward()
    share = torch.tensor([1.0, 2.0, 0.0]).softmax(0) - torch.tensor([0.5, 0.0, 0.5])
    expected = torch.zeros(8)
    expected[[0, 2, 4]] = share
    torch.testing.assert_close(logits.grad, expected)


def test_large_logits_and_batches_without_lists_stay_finite() -> None:
    logits, labels = torch.tensor([3e4, -3e4]), torch.tensor([0.0, 1.0])
    total, count = list_softmax(logits, labels, torch.tensor([2, 2]))
    assert (total.item(), count.item()) == (6e4, 1)
    total, count = list_softmax(logits, labels, torch.tensor([0, 0]))
    assert (total.item(), count.item()) == (0, 0)
