"""Views are brought together as worked out by hand, and duplicates are no negatives."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from recsys.objectives.multi_view import multi_view


def test_two_views_of_two_things_by_hand() -> None:
    """Cosines 1 and 0 over the temperature 1: a row's own share is e / (e + 1), both ways."""
    views = {"text": torch.tensor([[3.0, 0.0], [0.0, 0.5]]), "had": torch.eye(2)}
    plain = multi_view(views, [("text", "had")], torch.tensor([7, 8]), temperature=1, smoothing=0)
    share = math.e / (math.e + 1)
    torch.testing.assert_close(plain, torch.full((2,), -math.log(share)))
    smooth = multi_view(views, [("text", "had")], torch.tensor([7, 8]), temperature=1)
    expected = -0.95 * math.log(share) - 0.05 * math.log(1 - share)
    torch.testing.assert_close(smooth, torch.full((2,), expected))


def test_without_duplicates_it_is_cross_entropy_of_both_directions() -> None:
    torch.manual_seed(0)
    one, other, third = torch.randn(3, 6, 4)
    views, ids = {"a": one, "b": other, "c": third}, torch.arange(6)
    scores = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T / 0.05
    both = [
        F.cross_entropy(logits, ids, label_smoothing=0.1, reduction="none")
        for logits in (scores, scores.T)
    ]
    first = multi_view(views, [("a", "b")], ids)
    torch.testing.assert_close(first, (both[0] + both[1]) / 2)
    summed = multi_view(views, [("a", "b"), ("b", "c")], ids)
    torch.testing.assert_close(summed, first + multi_view(views, [("b", "c")], ids))


def test_duplicates_of_an_item_are_left_out() -> None:
    """Rows 0 and 1 are the same item: each loses what it would without the other."""
    torch.manual_seed(1)
    one, other = torch.randn(2, 4, 3)
    twice = multi_view({"a": one, "b": other}, [("a", "b")], torch.tensor([5, 5, 6, 7]))
    for row, kept in ((0, [0, 2, 3]), (1, [1, 2, 3])):
        alone = multi_view(
            {"a": one[kept], "b": other[kept]}, [("a", "b")], torch.tensor([5, 6, 7])
        )
        torch.testing.assert_close(twice[row], alone[0])
