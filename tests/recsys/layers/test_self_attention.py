"""Self-attention: a position sees itself and what lies before it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recsys.layers.dropout import Dropout
from recsys.layers.self_attention import GatedBlock, SelfAttentionBlock

Block = SelfAttentionBlock | GatedBlock


@pytest.fixture(params=[1, 2])
def heads(request: pytest.FixtureRequest) -> int:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[SelfAttentionBlock, GatedBlock])
def block(request: pytest.FixtureRequest, heads: int) -> Block:
    return made(request.param, heads)


def made(kind: type, heads: int) -> Block:
    torch.manual_seed(0)
    return kind(width=8, heads=heads, hidden=16, dropout=0.5).eval()  # type: ignore[no-any-return]


def attention(block: Block, x: Tensor) -> Tensor:
    """Of one sequence [T, D], by the formula."""
    width, length = 8 // block.heads, len(x)
    q, k, v = block.qkv(block.attention_norm(x)).split(8, dim=1)
    out = []
    for head in range(block.heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / width**0.5
        later = torch.ones(length, length).triu(1).bool()
        out.append(scores.masked_fill(later, float("-inf")).softmax(1) @ v[:, part])
    return block.out(torch.cat(out, dim=1))


@torch.no_grad()
def test_a_later_event_does_not_change_an_earlier_output(block: Block) -> None:
    x = torch.randn(2, 6, 8)
    changed = x.clone()
    changed[:, 3] += torch.randn(8)
    before, after = block(x), block(changed)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    for later in range(3, 6):  # and it is seen by itself and everything behind it
        assert not torch.allclose(after[:, later], before[:, later])


@torch.no_grad()
def test_padding_behind_does_not_matter(block: Block) -> None:
    x = torch.randn(1, 3, 8)
    padded = torch.cat([x, torch.randn(1, 4, 8)], dim=1)
    torch.testing.assert_close(block(padded)[:, :3], block(x))


@torch.no_grad()
def test_attention_is_softmax_of_scaled_products(heads: int) -> None:
    block, x = made(SelfAttentionBlock, heads), torch.randn(1, 4, 8)
    attended = x[0] + attention(block, x[0])
    expected = attended + block.feed(block.feed_norm(attended))  # type: ignore[union-attr, operator]
    torch.testing.assert_close(block(x)[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_gated_block_is_its_formula(heads: int) -> None:
    """`x + A(y) sigmoid(G y)` of the normed input y; and `x + W (silu(a) b) sigmoid(H y)`."""
    block, x = made(GatedBlock, heads), torch.randn(1, 4, 8)
    assert isinstance(block, GatedBlock)
    gate = 1 / (1 + torch.exp(-block.attention_gate(block.attention_norm(x[0]))))
    attended = x[0] + attention(block, x[0]) * gate
    y = block.feed_norm(attended)
    wide = y @ block.feed_in.weight.T + block.feed_in.bias
    assert wide.shape == (4, 2 * 4 * 16)
    a, b = wide[:, :64], wide[:, 64:]
    fed = block.feed_out(a / (1 + torch.exp(-a)) * b)
    expected = attended + fed / (1 + torch.exp(-block.feed_gate(y)))
    torch.testing.assert_close(block(x)[0], expected, atol=1e-5, rtol=1e-5)


def test_both_halves_and_the_hidden_layer_are_dropped_out(block: Block) -> None:
    widths: list[int] = []
    for part in block.modules():
        if isinstance(part, Dropout):
            part.register_forward_hook(lambda _, given, out: widths.append(given[0].shape[-1]))
    block(torch.randn(1, 4, 8))
    assert sorted(widths) == [8, 8, 64 if isinstance(block, GatedBlock) else 16]


def test_dropout_acts_in_training_alone(block: Block) -> None:
    x = torch.randn(1, 4, 8)
    assert torch.equal(block(x), block(x))
    block.train()
    assert not torch.equal(block(x), block(x))
