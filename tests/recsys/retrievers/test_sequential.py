"""What SASRec and HSTU share: positions count back from the last event, and training reads what
serving will read."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conformance import fresh, small
from feature_store.columns import HISTORY, HISTORY_TIME, TIME
from planted import Shape
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.retrievers.sequential import SequentialRetriever

HISTORIES = [[4, 9, 2, 7, 5], [3, 1], [6, 8, 3], list(range(1, 13))]
LONGEST = 8  # that is read: `small`
FAMILY = pytest.mark.parametrize("name", ["sasrec", "hstu"])


def made(name: str, examples: Examples, **options: Any) -> SequentialRetriever:
    """A model whose every weight matters."""
    model = fresh(small(name, **options), examples)
    with torch.no_grad():
        for weights in model.parameters():
            torch.nn.init.normal_(weights, std=0.5)
    return model  # type: ignore[no-any-return]


def batch_of(histories: list[list[int]]) -> Batch:
    """Sequences whose gaps in time grow."""
    times = [[1000 + 60 * place**3 for place in range(len(items))] for items in histories]
    return Block.of(pa.table({HISTORY: histories, HISTORY_TIME: times})).to_batch()


def request(items: list[int], times: list[int], now: int) -> dict[str, Tensor]:
    """One request, as serving makes it."""
    columns = {HISTORY: [items], HISTORY_TIME: [times], TIME: now}
    return {name: torch.tensor(values).reshape(1, -1) for name, values in columns.items()} | {
        TIME: torch.tensor([now])
    }


@FAMILY
def test_positions_count_back_from_the_last_event(
    name: str, planted: dict[Shape, Examples]
) -> None:
    history = torch.tensor([[5, 6, 7, 0], [8, 0, 0, 0], [1, 2, 3, 4]])
    ago = made(name, planted["sequences"]).ago(history)
    assert ago.tolist() == [[2, 1, 0, 0], [0, 0, 0, 0], [3, 2, 1, 0]]


@torch.no_grad()
def test_sasrec_reads_normed_sums_of_items_and_positions(planted: dict[Shape, Examples]) -> None:
    model: Any = made("sasrec", planted["sequences"], blocks=2).eval()
    history, events = torch.tensor([[5, 6, 7]]), torch.randn(1, 3, 16)
    summed = events + model.positions[[2, 1, 0]]
    x = F.layer_norm(summed, (16,), model.input_norm.weight, model.input_norm.bias)
    for block in model.blocks:
        x = block(x)
    expected = F.layer_norm(x, (16,), model.norm.weight, model.norm.bias)
    torch.testing.assert_close(model.transform(history, events, None), expected)


@torch.no_grad()
def test_hstu_reads_scaled_items_and_positions(planted: dict[Shape, Examples]) -> None:
    model: Any = made("hstu", planted["sequences"], blocks=2, time_bias=False).eval()
    history, events = torch.tensor([[5, 6, 7]]), torch.randn(1, 3, 16)
    x = 4 * events + model.positions[[2, 1, 0]]  # sqrt(16)
    for block in model.blocks:
        x = block(x, None)
    torch.testing.assert_close(model.transform(history, events, None), x)


@FAMILY
def test_the_last_target_is_predicted_from_what_serving_would_read(
    name: str, planted: dict[Shape, Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its length and the others': the event itself is not read, and the position before it
    is the last one; its time is the request's."""
    model = made(name, planted["sequences"]).train()
    heard: list[Tensor] = []
    transform = model.transform

    def listening(*arguments: Any) -> Tensor:
        heard.append(transform(*arguments))
        return heard[-1]

    monkeypatch.setattr(model, "transform", listening)
    batch = batch_of(HISTORIES)
    model(batch, 0)
    (out,) = heard
    rows = batch.padded(HISTORY_TIME, LONGEST + 1)
    model.eval()
    for user, whole in enumerate(HISTORIES):
        items = whole[-LONGEST - 1 :]
        *before, now = rows[user, : len(items)].tolist()
        served = model.encode(request(items[:-1], before, now)).vectors[0, 0]
        trained = model.objective.unit(out[user, len(items) - 2])
        torch.testing.assert_close(trained, served, atol=1e-4, rtol=1e-4)


@FAMILY
def test_every_event_but_the_first_is_a_target(name: str, planted: dict[Shape, Examples]) -> None:
    """Of those that are read, and one more."""
    loss = made(name, planted["sequences"])(batch_of(HISTORIES), 0)
    assert int(loss.weight) == 4 + 1 + 2 + 8


@FAMILY
def test_dropout_reaches_the_blocks(name: str, planted: dict[Shape, Examples]) -> None:
    model: Any = fresh(small(name, dropout=0.4), planted["sequences"])
    assert [block.drop.probability for block in model.blocks] == [0.4] * len(model.blocks)
    assert model.drop.probability == 0.4


def test_what_lies_before_the_last_event_decides_and_in_which_order(
    planted: dict[Shape, Examples],
) -> None:
    """After 1, 2, 9 comes 3, and after 2, 1, 9 comes 4; with one block, positions alone tell."""
    torch.manual_seed(0)
    model: Any = fresh(small("sasrec", negatives=0, blocks=1), planted["sequences"])
    batch = batch_of([[1, 2, 9, 3], [2, 1, 9, 4]] * 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(60):
        optimizer.zero_grad()
        model(batch, step).total.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        users = model.encode({HISTORY: torch.tensor([[1, 2, 9], [2, 1, 9]])}).vectors.squeeze(1)
        scores = users @ model.embed_items(torch.tensor([3, 4])).T
    assert scores.argmax(1).tolist() == [0, 1]
    assert (scores[0, 0] - scores[0, 1]) > 0.1 and (scores[1, 1] - scores[1, 0]) > 0.1
