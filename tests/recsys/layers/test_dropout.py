"""Dropout drops the share it should and keeps the mean."""

from __future__ import annotations

import pytest
import torch

from recsys.layers.dropout import Dropout


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1000, 1003), (7, 11, 13_001)])
def test_the_share_and_the_mean_are_right(probability: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    out = Dropout(probability)(torch.ones(shape))
    rounded = round(probability * 256) / 256
    kept = out != 0
    spread = (rounded * (1 - rounded) / out.numel()) ** 0.5
    assert abs(1 - float(kept.double().mean()) - rounded) < 5 * spread
    assert torch.allclose(out[kept], torch.tensor(1 / (1 - rounded)))
    assert abs(1 - float(kept.flatten()[::8].double().mean()) - rounded) < 5 * spread * 8**0.5


def test_hardly_anything_may_be_kept() -> None:
    """.999 is nearer to 1 than to 255/256, and of nothing kept there is no mean to keep."""
    torch.manual_seed(0)
    out = Dropout(0.999)(torch.ones(200, 1000))
    assert out.isfinite().all() and set(out.unique().tolist()) == {0.0, 256.0}


def test_evaluation_and_zero_leave_everything() -> None:
    x = torch.randn(5, 7)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_the_gradient_flows_through_what_is_kept() -> None:
    x = torch.ones(64, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
