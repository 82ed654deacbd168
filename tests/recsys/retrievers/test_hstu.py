"""HSTU's attention against its formula, and the times it reads."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conformance import fresh, small
from planted import Shape
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.layers import hstu
from recsys.layers.hstu import BUCKETS, HSTUBlock, time_buckets
from recsys.retrievers.hstu import HSTU

B, H, T, D, LENGTH = 5, 2, 7, 3, 9
EPSILON = 1e-2  # large enough to be seen


def test_buckets_grow_with_the_logarithm_of_the_gap() -> None:
    """To the event or request that follows; what lies ahead counts by its distance, too."""
    times = torch.tensor([[0, 10, 1000]])
    following = torch.tensor([[10, 1000, 1001]])
    found = time_buckets(times, following)[0]
    for i in range(3):
        for j in range(3):
            gap = max(1, abs(int(following[0, i] - times[0, j])))
            assert found[i, j] == math.floor(math.log(gap) / 0.301)
    assert time_buckets(torch.zeros(1, 1).long(), torch.full((1, 1), 1 << 60)).item() == BUCKETS - 1


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_block_is_its_formula(
    timed: bool, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value by value, and so are the gradients of all that it learns, in chunks of two users."""
    monkeypatch.setattr(hstu, "_CHUNK_SCORES", 2 * H * T * T)
    torch.manual_seed(0)
    block = HSTUBlock(4, H, D, LENGTH, 0.0, timed=timed, epsilon=EPSILON).double().train(training)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(B, T, 4, dtype=torch.float64, requires_grad=True)
    buckets = torch.randint(0, 6, (B, T, T), dtype=torch.int32) if timed else None
    found, expected = block(x, buckets), _by_hand(block, x, buckets)
    torch.testing.assert_close(found, expected)
    leaves = [x, *block.parameters()]
    weights = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), leaves),
        torch.autograd.grad((expected * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def _by_hand(block: HSTUBlock, x: Tensor, buckets: Tensor | None) -> Tensor:
    users = []
    for user in range(B):
        normed = torch.stack(
            [(row - row.mean()) / (row.var(correction=0) + EPSILON).sqrt() for row in x[user]]
        )
        u, v, q, k = F.silu(normed @ block.weight).split(H * D, dim=1)
        rows = []
        for i in range(T):
            heads = []
            for h in range(H):
                part = slice(h * D, (h + 1) * D)
                total = torch.zeros(D, dtype=x.dtype)
                for j in range(i + 1):
                    score = q[i, part] @ k[j, part] + block.position[i - j]
                    if buckets is not None and block.time is not None:
                        score = score + block.time[buckets[user, i, j]]
                    total = total + F.silu(score) / LENGTH * v[j, part]
                heads.append(total)
            rows.append(u[i] * F.layer_norm(torch.cat(heads), (H * D,), eps=EPSILON))
        users.append(x[user] + block.out(torch.stack(rows)))
    return torch.stack(users)


def test_a_block_drops_out_in_training_alone() -> None:
    """Of what goes to its last layer; what it adds to goes on whole."""
    torch.manual_seed(0)
    block, x = HSTUBlock(4, H, D, LENGTH, 0.5, timed=False), torch.randn(B, T, 4)
    assert not torch.equal(block(x, None), block(x, None))
    entered: list[Tensor] = []
    block.out.register_forward_hook(lambda _, given, out: entered.append(given[0]))
    block(x, None)
    assert abs(float((entered[0] == 0).double().mean()) - 0.5) < 0.15
    block.eval()
    assert torch.equal(block(x, None), block(x, None))


def test_its_norms_and_positions_start_as_they_are_set_to(planted: dict[Shape, Examples]) -> None:
    """The authors' are 1e-6 and 1 / sqrt(D); positions start as embeddings do by default."""
    config = small("hstu", max_length=200, width=64, epsilon=1e-6, position_std=1 / 8)
    model = fresh(config, planted["sequences"])
    assert {block.epsilon for block in model.blocks} == {1e-6}
    assert float(model.positions.std()) == pytest.approx(1 / 8, rel=0.03)
    plain = fresh(small("hstu", max_length=200), planted["sequences"])
    assert float(plain.positions.std()) == pytest.approx(0.02, rel=0.05)


def test_what_comes_next_depends_on_when_it_is_asked_for(planted: dict[Shape, Examples]) -> None:
    """After item 1, item 2 follows within two minutes and item 3 after a day or more, here in 100
    steps."""
    torch.manual_seed(0)
    model = fresh(small("hstu", negatives=0), planted["sequences"])
    assert isinstance(model, HSTU)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    gaps = [(2, gap) for gap in range(10, 120, 7)] + [(3, gap * 20_000) for gap in range(4, 20)]
    rows = [[[1, item], [1000, 1000 + gap]] for item, gap in gaps]
    columns = zip(("history", "history_time"), zip(*rows, strict=True), strict=True)
    batch = Block.of(pa.table({name: list(values) for name, values in columns})).to_batch()
    for step in range(100):
        optimizer.zero_grad()
        model(batch, step).total.backward()
        optimizer.step()
    model.eval()
    asked = torch.tensor([1030, 1090, 90_000, 200_000])
    inputs = {"history": torch.ones(4, 1).long(), "history_time": torch.full((4, 1), 1000)}
    with torch.no_grad():
        users = model.encode({**inputs, "time": asked}).vectors.squeeze(1)
        scores = users @ model.embed_items(torch.tensor([2, 3])).T
    assert scores.argmax(1).tolist() == [0, 0, 1, 1]


def test_without_times_it_goes_by_order_alone(planted: dict[Shape, Examples]) -> None:
    model = fresh(small("hstu", time_bias=False), planted["sequences"])
    assert [one.name for one in model.inputs] == ["history"]
    assert not any(name.endswith(".time") for name, _ in model.named_parameters())
