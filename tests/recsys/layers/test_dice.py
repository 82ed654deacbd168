"""Dice against values by hand; that two processes share its statistics is conformance's."""

from __future__ import annotations

import math

import pytest
import torch

from recsys.layers.dice import Dice


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_it_follows_the_mean_and_variance_of_the_batch_while_training() -> None:
    """Mean 1 and variance 4: a deviation of 2."""
    dice = Dice(1)
    torch.nn.init.constant_(dice.alpha, 0.25)
    found = dice(torch.tensor([[-1.0], [3.0]]))
    low, high = sigmoid(-1), sigmoid(1)
    expected = [low * -1 + (1 - low) * 0.25 * -1, high * 3 + (1 - high) * 0.25 * 3]
    assert found.flatten().tolist() == pytest.approx(expected)


def test_it_answers_by_averages_of_what_training_met() -> None:
    """Means 1 and 5, variances 4 and 0, of two steps: on average 3 and 2."""
    dice = Dice(1)
    dice(torch.tensor([[-1.0], [3.0]]))
    dice(torch.tensor([[5.0], [5.0]]))
    dice.eval()
    expected = 4 * sigmoid(1 / math.sqrt(2))
    assert dice(torch.tensor([[4.0]])).item() == pytest.approx(expected)
    assert dice(torch.tensor([[4.0], [-7.0]]))[0].item() == pytest.approx(expected)


def test_an_average_forgets_after_a_hundred_steps() -> None:
    dice = Dice(1)
    dice(torch.zeros(2, 1))
    for _ in range(1_000):
        dice(torch.tensor([[9.0], [11.0]]))
    assert dice.mean.item() == pytest.approx(10, abs=1e-2)


def test_each_channel_has_its_own_statistics_of_the_rows_that_count() -> None:
    dice = Dice(2)
    rows = torch.tensor([[[-1.0, 10.0], [3.0, 14.0]], [[100.0, 0.0], [-100.0, 0.0]]])
    counted = torch.tensor([[True, True], [False, False]])
    found = dice(rows, counted)
    assert dice.mean.tolist() == pytest.approx([1, 12])
    assert dice.variance.tolist() == pytest.approx([4, 4])
    assert found[0, 1].tolist() == pytest.approx([3 * sigmoid(1), 14 * sigmoid(1)])
    nothing = Dice(2)
    assert nothing(rows, torch.zeros(2, 2, dtype=torch.bool)).isfinite().all()


def test_without_deviation_it_is_prelu() -> None:
    """Of inputs of mean 0 that are large beside their deviation, as the paper says of it."""
    dice = Dice(1).eval()
    dice.variance.zero_()
    torch.nn.init.constant_(dice.alpha, 0.25)
    rows = torch.tensor([[-3.0], [2.0]])
    torch.testing.assert_close(dice(rows), torch.nn.functional.prelu(rows, torch.tensor([0.25])))


@pytest.mark.parametrize("cached", [1 << 16, 6], ids=["in one", "two rows at a time"])
@pytest.mark.parametrize("counted", [None, torch.tensor([1, 1, 0, 1, 0]).bool()])
def test_gradients_flow_through_the_statistics(
    counted: torch.Tensor | None, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.layers.dice._CACHED", cached)
    torch.manual_seed(0)
    dice = Dice(3).double()
    torch.nn.init.constant_(dice.alpha, 0.25)
    rows = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: dice(x, counted), rows)
    alpha = dice.alpha.data.clone().fill_(0.3)

    def of_alpha(alpha: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(dice, {"alpha": alpha}, (rows, counted))

    assert torch.autograd.gradcheck(of_alpha, alpha.requires_grad_())
