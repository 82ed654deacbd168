"""Which events of a history a step trains on."""

from __future__ import annotations

import pytest
import torch

from recsys.objectives.targets import draw_targets

HISTORY = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0, 0], [2, 5, 0, 0, 0, 0, 0, 0, 0], [3] + [0] * 8])


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize(("count", "expected"), [(2, [2, 1, 0]), (9, [3, 1, 0])])
def test_padding_takes_no_target_from_those_that_there_are(
    step: int, count: int, expected: list[int]
) -> None:
    """As many as are asked for, or all but the first, whichever items they are."""
    users, ends = draw_targets(HISTORY, count, longest=9, seed=0, step=step)
    assert users.bincount(minlength=3).tolist() == expected
    assert (HISTORY[users, ends] != 0).all() and (ends > 0).all()
