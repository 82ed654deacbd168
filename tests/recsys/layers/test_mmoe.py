"""MMoE against a small one by hand."""

from __future__ import annotations

import torch

from recsys.layers.mmoe import MMoE


@torch.no_grad()
def test_each_task_mixes_the_experts_in_its_own_way() -> None:
    """Experts give 2x and 3x; the first task's gates are equal, the second's lean on x itself."""
    mixture = MMoE(1, (1,), tasks=2, experts=2)
    for expert, factor in zip(mixture.experts, (2.0, 3.0), strict=True):
        expert[0].weight.fill_(factor)  # type: ignore[index,operator,union-attr]
        expert[0].bias.zero_()  # type: ignore[index,operator,union-attr]
    mixture.gates.weight.copy_(torch.tensor([[0.0], [0.0], [1.0], [0.0]]))
    for head, (weight, bias) in zip(mixture.heads, ((1.0, 0.0), (10.0, 0.5)), strict=True):
        head.weight.fill_(weight)  # type: ignore[operator,union-attr]
        head.bias.fill_(bias)  # type: ignore[operator,union-attr]
    x = torch.tensor([[1.0], [2.0]])
    leaning = torch.sigmoid(x)  # the softmax of (x, 0)
    expected = torch.cat([2.5 * x, 10 * (2 * leaning + 3 * (1 - leaning)) * x + 0.5], dim=1)
    torch.testing.assert_close(mixture(x), expected)
    torch.testing.assert_close(mixture(-x)[:, 0], torch.zeros(2))  # experts end in a ReLU
