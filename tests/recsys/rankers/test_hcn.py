"""HCN as a coarse ranker: what is made once, and what is asked of each item."""

from __future__ import annotations

import torch

from conformance import batch_from, fresh, rows_of, small
from planted import Shape
from recsys.data.examples import Examples
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
    for weights in ranker.item_tower.parameters():
        weights.mul_(2)
    kept = ranker.score(ranker.encode(inputs), items)
    torch.testing.assert_close(kept, loose)  # of what was frozen
    moved = ranker.train().eval().score(ranker.encode(inputs), items)
    assert not torch.allclose(moved, loose)


def test_what_was_frozen_moves_with_the_ranker(planted: dict[Shape, Examples]) -> None:
    ranker, _, _ = hcn(planted)
    ranker.freeze()
    assert "_frozen" not in ranker.state_dict()
    assert ranker._frozen is not None and ranker.to("meta")._frozen.is_meta  # type: ignore[union-attr]


@torch.no_grad()
def test_an_item_is_judged_by_the_interests_that_it_suits(planted: dict[Shape, Examples]) -> None:
    """Two interests and a request, by hand: products 3 and 1, of which the first weighs more."""
    ranker, _, _ = hcn(planted)
    interests = torch.tensor([[[0.5, 0.0], [3.0, 0.0], [1.0, 0.0]]])
    item = torch.tensor([[[1.0, 0.0, 0.25]]])  # a vector and a bias
    share = torch.tensor([3.0, 1.0]).softmax(0)
    expected = 0.5 + (share * torch.tensor([3.0, 1.0])).sum() + 0.25
    torch.testing.assert_close(ranker._rated(interests, item).flatten(), expected.reshape(1))
