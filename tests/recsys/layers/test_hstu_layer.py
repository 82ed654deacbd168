"""HSTU's attention by parts of users is the same as at once."""

from __future__ import annotations

import pytest
import torch

from recsys.layers import hstu


def test_gradients_are_the_same_however_few_users_fit_in_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the weights of a single user do not."""
    users, heads, length, width = 3, 2, 5, 4
    random = torch.Generator().manual_seed(1)
    shapes = [(users, heads, length, width)] * 3 + [(length,), (hstu.BUCKETS,)]
    values = [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]
    times = torch.randint(0, 10**6, (users, length), generator=random).sort().values
    buckets = hstu.time_buckets(times, times + 60)

    def gradients(attention: object) -> list[torch.Tensor]:
        given = [value.clone().requires_grad_() for value in values]
        attended = attention(*given, buckets, length)  # type: ignore[operator]
        attended.square().sum().backward()
        return [attended.detach(), *(value.grad for value in given)]  # type: ignore[list-item]

    expected = gradients(hstu.pointwise_attention)
    for scores in (1, heads * length**2 * 2, 10**6):
        monkeypatch.setattr(hstu, "_CHUNK_SCORES", scores)
        for ours, theirs in zip(gradients(hstu._PointwiseAttention.apply), expected, strict=True):
            torch.testing.assert_close(ours, theirs)
