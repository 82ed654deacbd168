"""HCN as a coarse ranker: what is made once, and what is asked of each item."""

from __future__ import annotations

import math

import torch

from conformance import batch_from, fresh, rows_of, small
from planted import Shape
from recsys.cascade.ranking import Ranking
from recsys.cascade.translation import Translation
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.rankers.base import Ranker
from recsys.rankers.hcn import HCN


def hcn(planted: dict[Shape, Examples]) -> tuple[HCN, dict[str, torch.Tensor], torch.Tensor]:
    """A ranker, requests, and rows of all items for each of them."""
    examples = planted["labelled"]
    ranker: HCN = fresh(small("hcn"), examples).eval()
    batch = batch_from(ranker, rows_of(ranker, examples).slice(0, 5))
    return ranker, ranker.inputs_of(batch), torch.arange(examples.num_items).repeat(5, 1)


@torch.no_grad()
def test_a_frozen_one_answers_alike_until_it_learns_again(planted: dict[Shape, Examples]) -> None:
    ranker, inputs, items = hcn(planted)
    loose = ranker.score(ranker.encode(inputs), items)
    ranker.freeze()
    torch.testing.assert_close(ranker.score(ranker.encode(inputs), items), loose)
    for weights in (*ranker.item_tower.parameters(), *ranker.event.parameters()):
        weights.mul_(2)
    kept = ranker.score(ranker.encode(inputs), items)
    torch.testing.assert_close(kept, loose)  # of what was frozen
    moved = ranker.train().eval().score(ranker.encode(inputs), items)
    assert not torch.allclose(moved, loose)


def test_what_was_frozen_moves_with_the_ranker(planted: dict[Shape, Examples]) -> None:
    ranker, _, _ = hcn(planted)
    ranker.freeze()
    made = {"_vectors", "_biases", "_events"}
    assert not made & set(ranker.state_dict())
    buffers = dict(ranker.to("meta").named_buffers())
    assert all(buffers[name].is_meta for name in made)


@torch.no_grad()
def test_an_item_is_judged_by_the_interests_that_it_suits(planted: dict[Shape, Examples]) -> None:
    """Two interests and a request, by hand: products 3 and 1, of which the first weighs more."""
    ranker, _, _ = hcn(planted)
    interests = torch.tensor([[[0.5, 0.0], [3.0, 0.0], [1.0, 0.0]]])
    item = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.25]]])  # a vector and a bias
    share = torch.tensor([3.0, 1.0]).softmax(0)
    expected = 0.5 + (share * torch.tensor([3.0, 1.0])).sum() + 0.25
    torch.testing.assert_close(ranker._rated(interests, *item).flatten(), expected.reshape(1))


@torch.no_grad()
def test_what_is_had_already_adds_to_a_logit(planted: dict[Shape, Examples]) -> None:
    """Of a history 5, 7, 5: log(1 + count), whether it is there, one over its rank from the newest,
    weighed 2, 3 and 4; frozen or not."""
    examples = planted["labelled"]
    ranker: HCN = fresh(small("hcn", repeats=True), examples).eval()
    assert ranker.again is not None
    batch = batch_from(ranker, rows_of(ranker, examples).slice(0, 1))
    inputs = ranker.inputs_of(batch) | {"history": torch.tensor([[5, 7, 5]])}
    items = torch.tensor([[5, 6, 7]])
    told = {}
    for weights in ([0.0, 0.0, 0.0], [2.0, 3.0, 4.0]):
        ranker.again.weight.copy_(torch.tensor([weights]))
        told[weights[0]] = ranker.score(ranker.encode(inputs), items)
        torch.testing.assert_close(ranker.logits(inputs, items), told[weights[0]])
    added = [2 * math.log(3) + 3 + 4, 0.0, 2 * math.log(2) + 3 + 4 / 2]
    torch.testing.assert_close((told[2.0] - told[0.0])[0, :, 0], torch.tensor(added))
    ranker.freeze()
    torch.testing.assert_close(ranker.score(ranker.encode(inputs), items), told[2.0])


def logits_of(ranker: Ranker, batch: Batch) -> torch.Tensor:
    """Of every row's own item [B, tasks]."""
    return ranker.logits(ranker.inputs_of(batch), batch.id(ranker.item).unsqueeze(1)).squeeze(1)


def test_labels_and_a_teacher_share_the_loss(planted: dict[Shape, Examples]) -> None:
    examples = planted["labelled"]
    din = fresh(small("din"), examples).eval()
    teacher = Ranking(din, din.tasks[0], Translation.between(examples, examples, []))
    pupil: HCN = fresh(small("hcn", teacher="a/run", taught=0.25), examples).eval()
    weights = set(pupil.state_dict())
    own = {asked.name for asked in pupil.inputs}
    pupil.learn_from(teacher)
    read = pupil.read_in_training
    assert {asked.name for asked in read} == own | {asked.name for asked in din.inputs}
    reader = examples.reader("train", read, ReaderConfig(batch_size=6), extra=pupil.judged_by)
    batch = next(iter(reader))
    loss, alone = pupil(batch, 0), Ranker.loss_of(pupil, logits_of(pupil, batch), batch)
    logits = logits_of(pupil, batch)[:, 0].double()
    told = logits_of(din, batch)[:, 0].double().sigmoid()
    apart = -(told * logits.sigmoid().log() + (1 - told) * (-logits).sigmoid().log()).sum()
    torch.testing.assert_close(loss.total.double(), 0.75 * alone.total.double() + 0.25 * apart)
    assert loss.weight == alone.weight == len(logits)
    assert set(pupil.state_dict()) == weights  # the teacher's are none of its own
    loss.total.backward()
    assert all(weight.grad is None for weight in din.parameters())
