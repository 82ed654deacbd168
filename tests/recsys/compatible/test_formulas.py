"""Formulas against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recsys.compatible.aligner import Aligner
from recsys.compatible.contract import OldItems
from recsys.compatible.options import AlignerConfig, RelativeConfig
from recsys.compatible.orthogonal import bent, rotation_of
from recsys.compatible.overlap import rank_biased_overlap
from recsys.compatible.procrustes import nearest_rotation, slerp
from recsys.compatible.relative import choose_anchors, whitened
from recsys.compatible.simplex import high_order, simplex


def test_rank_biased_overlap_by_hand() -> None:
    first = np.array([[1, 2, 3], [1, 2, 3], [1, 2, -1]])
    second = np.array([[1, 3, 4], [4, 5, 6], [1, 2, -1]])
    # overlaps 1/1, 1/2, 2/3: (.1 / .9)(.9 + .81 / 2 + .729 * 2/3) + .729 * 2/3
    by_hand = 0.1 / 0.9 * (0.9 + 0.81 * 0.5 + 0.729 * 2 / 3) + 0.729 * 2 / 3
    overlap = rank_biased_overlap(first, second, 0.9)
    assert overlap[0] == pytest.approx(by_hand) and by_hand == pytest.approx(0.685)
    assert overlap[1] == 0
    # what is not there is no common item
    assert overlap[2] == pytest.approx(0.1 / 0.9 * (0.9 + 0.81 + 0.729 * 2 / 3) + 0.729 * 2 / 3)


def test_equal_lists_overlap_wholly_whatever_p() -> None:
    lists = np.array([[5, 3, 9, 1]])
    for p in (0.5, 0.9, 0.98):
        assert rank_biased_overlap(lists, lists, p) == pytest.approx([1.0])
    # an exchange at the top is noticed more than one below
    top, end = np.array([[3, 5, 9, 1]]), np.array([[5, 3, 1, 9]])
    assert rank_biased_overlap(lists, top) < rank_biased_overlap(lists, end)


@pytest.mark.parametrize("corners", [2, 3, 17])
def test_corners_of_a_simplex(corners: int) -> None:
    points = simplex(corners)
    assert points.shape == (corners, corners - 1)
    gram = torch.full((corners, corners), -1 / (corners - 1))
    torch.testing.assert_close(points @ points.T, gram.fill_diagonal_(1.0), rtol=0, atol=1e-6)


def test_high_order_contrast_by_hand() -> None:
    old, new = torch.eye(3)[:, :2] + 0, torch.tensor([[1.0, 0], [0, 1.0], [0, 1.0]])
    classes = torch.tensor([0, 1, 1])
    old[2] = old[1]
    # item 0 against new 1 and 2: -10 + log(2 e^0); items 1, 2 against new 0: -10 + log(e^0)
    by_hand = (-10 + math.log(2) - 10 - 10) / 3
    assert high_order(old, new, classes, 10.0).item() == pytest.approx(by_hand)
    assert high_order(old, new, torch.zeros(3), 10.0).item() == 0  # no other class


def test_the_way_on_the_sphere() -> None:
    east, north = torch.tensor([[1.0, 0]]), torch.tensor([[0.0, 1]])
    half = slerp(east, north, 0.5)
    torch.testing.assert_close(half, torch.full((1, 2), 0.5**0.5))
    torch.testing.assert_close(slerp(east, north, 0.0), east)
    torch.testing.assert_close(slerp(east, east, 0.3), east)


def test_procrustes_finds_the_rotation_that_was_planted() -> None:
    torch.manual_seed(0)
    turn = rotation_of(torch.randn(8, 8))
    new = torch.randn(50, 8)
    torch.testing.assert_close(nearest_rotation(new, new @ turn), turn, rtol=0, atol=1e-5)
    eye = torch.eye(8)
    torch.testing.assert_close(turn @ turn.T, eye, rtol=0, atol=1e-5)


def test_a_map_may_bend_as_far_as_its_slack() -> None:
    matrix = 1.5 * torch.eye(4)  # |W W^T - I| = 2 * 1.25
    assert bent(matrix, slack=2.5, sharpness=10.0).item() == pytest.approx(1.25)
    assert bent(matrix, slack=4.0, sharpness=10.0).item() < 1e-5
    assert bent(matrix, slack=0.0, sharpness=10.0).item() == pytest.approx(2.5, abs=1e-4)


def test_the_aligners_penalty_goes_through_earlier_matrices() -> None:
    old = OldItems(torch.tensor([[0.0, 0], [1.0, 0], [0, 1.0]]), torch.tensor([False, True, True]))
    earlier = torch.tensor([[2.0], [0.0]])
    aligner = Aligner(AlignerConfig(weight=3.0, retrieval=0.0), old, 2, 0, [earlier])
    vectors = torch.tensor([[0.0, 0], [0, 2.0]])  # residuals (1, 0) and (0, -1), then 2 and 0
    rows = torch.tensor([1, 2])
    none = vectors[:0], vectors[:0], rows[:0]
    losses = aligner.losses(
        lambda q, p, n: torch.zeros(2), none[0], vectors, none[1], rows, none[2]
    )
    assert losses.tolist() == pytest.approx([3 * (2 / 4 + 4 / 2) / 2] * 2)
    # of what the old index lacks there is nothing to be near to
    free = aligner.losses(
        lambda q, p, n: torch.zeros(1), none[0], vectors[:1], none[1], rows[:1] * 0, none[2]
    )
    assert free.tolist() == [0.0]


def test_whitened_anchors_keep_inner_products_however_they_crowd() -> None:
    torch.manual_seed(0)
    anchors = torch.randn(40, 6)
    anchors[:, 0] *= 10
    x = torch.randn(20, 6)
    described = x @ whitened(anchors, 1.0).T
    torch.testing.assert_close(described @ described.T, x @ x.T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(whitened(anchors, 0.0), anchors, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("choice", ["random", "farthest", "clusters"])
def test_anchors_are_different_items(choice: str) -> None:
    torch.manual_seed(0)
    items = torch.nn.functional.normalize(torch.randn(60, 4), dim=1)
    items[30:] = items[:1]  # half of them lie in one place
    config = RelativeConfig(anchors=8, choice=choice)  # type: ignore[arg-type]
    chosen = choose_anchors(items, config)
    assert len(chosen) == len(chosen.unique()) <= 8
    if choice == "farthest":
        assert (chosen >= 30).sum() <= 1
    assert torch.equal(chosen, choose_anchors(items, config))
