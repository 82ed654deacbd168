"""Self-attention: a position sees itself and what lies before it."""

from __future__ import annotations

import pytest
import torch

from recsys.layers.self_attention import SelfAttentionBlock


@pytest.fixture(params=[1, 2])
def block(request: pytest.FixtureRequest) -> SelfAttentionBlock:
    torch.manual_seed(0)
    return SelfAttentionBlock(width=8, heads=request.param, hidden=16, dropout=0.5).eval()


@torch.no_grad()
def test_a_later_event_does_not_change_an_earlier_output(block: SelfAttentionBlock) -> None:
    x = torch.randn(2, 6, 8)
    changed = x.clone()
    changed[:, 3] += torch.randn(8)
    before, after = block(x), block(changed)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    for later in range(3, 6):  # and it is seen by itself and everything behind it
        assert not torch.allclose(after[:, later], before[:, later])


@torch.no_grad()
def test_padding_behind_does_not_matter(block: SelfAttentionBlock) -> None:
    x = torch.randn(1, 3, 8)
    padded = torch.cat([x, torch.randn(1, 4, 8)], dim=1)
    torch.testing.assert_close(block(padded)[:, :3], block(x))


@torch.no_grad()
def test_attention_is_softmax_of_scaled_products(block: SelfAttentionBlock) -> None:
    x = torch.randn(1, 4, 8)
    heads, width = block.heads, 8 // block.heads
    q, k, v = block.qkv(block.attention_norm(x[0])).split(8, dim=1)
    out = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / width**0.5
        scores = scores.masked_fill(torch.ones(4, 4).triu(1).bool(), float("-inf"))
        out.append(scores.softmax(1) @ v[:, part])
    attended = x[0] + block.out(torch.cat(out, dim=1))
    expected = attended + block.feed(block.feed_norm(attended))
    torch.testing.assert_close(block(x)[0], expected, atol=1e-5, rtol=1e-5)


def test_dropout_acts_in_training_alone(block: SelfAttentionBlock) -> None:
    x = torch.randn(1, 4, 8)
    assert torch.equal(block(x), block(x))
    block.train()
    assert not torch.equal(block(x), block(x))
