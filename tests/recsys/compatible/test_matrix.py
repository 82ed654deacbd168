"""The matrix, flips, overlap and indexes on their way, of numbers that are easy to see through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.compatible.matrix import (
    CELLS,
    SHARES,
    Asked,
    Compatibility,
    Gallery,
    Halves,
    Requests,
    compare,
    lists_of,
    recalls,
)
from recsys.compatible.mixed import Calibration
from recsys.lists.merging import BY_SCORE

EYE = torch.eye(6)


def asking(*rows: int) -> Asked:
    """Queries that find these items first."""
    return Asked(EYE[list(rows)].unsqueeze(1), torch.ones(len(rows), 1), BY_SCORE)


def requests(*targets: int) -> Requests:
    return Requests(torch.full((len(targets), 1), -1), torch.tensor(targets).unsqueeze(1))


def compared(old: Asked, new: Asked, method: str | None = "procrustes") -> Compatibility:
    items = Gallery(EYE, torch.arange(6))
    halves = Halves(EYE, EYE, torch.arange(6), new, new)
    return compare(
        {cell: old if cell.startswith("old") else new for cell in CELLS},
        dict.fromkeys(CELLS, items),
        requests(0, 1, 2, 3),
        k=1,
        halves=None if method is None else halves,
        method=method,
    )


def test_lists_leave_out_what_was_seen_and_name_items_by_their_numbers() -> None:
    numbers = torch.tensor([40, 10, 30])
    gallery = Gallery(torch.tensor([[1.0], [3.0], [2.0]]), numbers)
    asked = Asked(torch.ones(3, 1, 1), torch.ones(3, 1), BY_SCORE)
    seen = torch.tensor([[-1, -1], [10, -1], [10, 99]])  # 99 lies in no gallery
    lists = lists_of(asked, gallery, seen, 4)
    assert lists.tolist() == [[10, 30, 40, -1], [30, 40, -1, -1], [30, 40, -1, -1]]
    targets = torch.tensor([[30, 77], [40, -1], [10, -1]])
    assert recalls(lists, targets, 2).tolist() == [0.5, 1.0, 0.0]


def test_the_matrix_and_what_flips() -> None:
    # the old model is right about 0 and 1, the new one about 1, 2 and 3
    outcome = compared(asking(0, 1, 5, 5), asking(5, 1, 2, 3))
    values = {cell: estimate.value for cell, estimate in outcome.cells.items()}
    assert values == {"old/old": 0.5, "old/new": 0.5, "new/old": 0.75, "new/new": 0.75}
    low, high = outcome.cells["old/old"][1:]
    assert 0 <= low < 0.5 < high <= 1
    assert outcome.gain.value == 0.25 and outcome.strict
    assert outcome.flips == {"new/old": 0.25, "new/new": 0.25}
    assert outcome.go and outcome.reasons == ()


def test_no_go_where_new_queries_find_no_more_than_old_ones() -> None:
    equal = compared(asking(0, 5, 5, 5), asking(5, 1, 5, 5))
    assert equal.gain.value == 0 and not equal.strict and not equal.go
    assert "worse than today" in equal.reasons[0]
    worse = compared(asking(0, 1, 5, 5), asking(0, 5, 5, 5))
    assert "new queries find 0.2500 in the old index, and old ones 0.5000" in worse.reasons[0]


def test_no_go_without_a_map_however_good_the_figures() -> None:
    outcome = compared(asking(0, 5, 5, 5), asking(0, 1, 2, 3), method=None)
    assert not outcome.go and "[compatible_with]" in outcome.reasons[0]
    assert outcome.mixed == () and outcome.scores == {}


def test_overlap_is_that_of_the_lists() -> None:
    # of a catalogue that is shorter than the lists that are compared, too
    same = compared(asking(0, 1, 2, 3), asking(0, 1, 2, 3))
    assert same.overlap["new/old"] == pytest.approx(1.0)
    other = compared(asking(0, 1, 2, 3), asking(5, 1, 2, 3))
    assert other.overlap["new/old"] < 1.0


def mixed_of(scale: float, calibration: Calibration) -> Compatibility:
    """New items score `scale` times what old ones do; both models are right about everything."""
    old, new = asking(0, 1, 2, 3), asking(0, 1, 2, 3)
    # what is wrong scores half of what is right
    vectors = EYE * 0.5 + 0.5
    halves = Halves(vectors, scale * vectors, torch.arange(6), new, new)
    return compare(
        {cell: old if cell.startswith("old") else new for cell in CELLS},
        dict.fromkeys(CELLS, Gallery(vectors, torch.arange(6))),
        requests(0, 1, 2, 3),
        k=1,
        halves=halves,
        calibration=calibration,
        method="aligner",
    )


def test_halves_whose_scores_differ_are_calibrated() -> None:
    outcome = mixed_of(3.0, Calibration(3.0, 0.0))
    assert [each.share for each in outcome.mixed] == list(SHARES)
    assert [each.recall for each in outcome.mixed] == [1.0] * 5
    plain = [each.uncalibrated for each in outcome.mixed]
    assert plain[0] == plain[-1] == 1.0 and min(plain) < 1.0  # new items crowd old ones out
    assert [each.old_queries for each in outcome.mixed] == [1.0] * 5
    assert outcome.scores["old_calibrated"] == pytest.approx(outcome.scores["new"], abs=1e-6)
    assert outcome.scores["old"].mean == pytest.approx(outcome.scores["new"].mean / 3)


def test_no_go_where_an_index_on_its_way_falls_below_today() -> None:
    outcome = mixed_of(3.0, Calibration())
    assert not outcome.go
    assert any("re-embedded recall falls to" in reason for reason in outcome.reasons)


def test_scores_are_calibrated_by_mean_and_spread() -> None:
    before = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    after = 5 + 2 * before
    calibration = Calibration.of(before, after)
    assert calibration.scale == pytest.approx(2) and calibration.shift == pytest.approx(5)
    shifted: Tensor = calibration(before)
    np.testing.assert_allclose(shifted, after, rtol=1e-6)
