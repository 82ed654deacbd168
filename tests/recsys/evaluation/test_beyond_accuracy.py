"""Exposure, novelty, diversity and popularity bias: hand-computed values and definitions."""

from __future__ import annotations

from itertools import combinations
from math import nan, sqrt

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from recsys.evaluation.beyond_accuracy import (
    catalogue_coverage,
    category_units,
    diversity,
    gini,
    novelty,
    popularity_weights,
    self_information,
    stratified_recall,
)
from recsys.evaluation.metrics import METRICS

KS = torch.tensor([1, 2, 4])


def close(values: torch.Tensor, expected: list[list[float]]) -> None:
    want = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(values, want, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_coverage_is_the_share_of_candidates_that_anyone_got() -> None:
    assert catalogue_coverage(np.array([3, 0, 1, 0, 0])) == 2 / 5
    assert catalogue_coverage(np.array([[1, 1], [0, 0]])).tolist() == [1, 0]


def test_gini_by_hand() -> None:
    # ascending 0, 1, 3: (-2 * 0 + 0 * 1 + 2 * 3) / (2 * 4)
    assert gini(np.array([3, 0, 1])) == 6 / 8


def test_gini_runs_from_equal_exposure_to_a_single_item() -> None:
    assert gini(np.array([[7, 7, 7, 7], [0, 5, 0, 0]])).tolist() == [0, 1]


def test_gini_counts_items_never_recommended() -> None:
    assert gini(np.array([2, 2])) == 0
    assert gini(np.array([2, 2, 0, 0])) == pytest.approx(2 / 3)


def test_gini_of_nothing_recommended_is_unknown() -> None:
    assert np.isnan(gini(np.zeros(3, dtype=int)))
    assert np.isnan(gini(np.array([5])))


def test_self_information_is_in_bits_and_finite_for_an_item_nobody_knows() -> None:
    # of 8 users, all, half, one and none had the item
    assert self_information(torch.tensor([8, 4, 1, 0]), 8).tolist() == [0, 1, 3, 3]


def test_novelty_is_a_mean_over_the_places_that_the_list_has() -> None:
    information = torch.tensor([nan, 1.0, 3.0, 8.0], dtype=torch.float64)  # row 0 is no item
    ids = torch.tensor([[2, 1, 3, 0], [1, 0, 0, 0], [0, 0, 0, 0]])
    close(novelty(ids, information, KS), [[3, 2, 4], [1, 1, 1], [nan, nan, nan]])


def test_category_units_are_multi_hot_of_length_1() -> None:
    half = sqrt(1 / 2)
    units = category_units(torch.tensor([[0, 0, 0], [1, 3, 0], [2, 2, 0], [0, 3, 0]]))
    expected = [[0, 0, 0], [half, 0, half], [0, 1, 0], [0, 0, 1]]
    torch.testing.assert_close(units, torch.tensor(expected))


def test_diversity_by_category_by_hand() -> None:
    # categories {1, 2}, {1}, {2}, {3}: cosines 1/sqrt(2) with the first, else 0
    units = category_units(torch.tensor([[0, 0], [1, 2], [1, 0], [2, 0], [3, 0]]))
    values = diversity(torch.tensor([[1, 2, 3, 4]]), units, KS)
    close(values, [[nan, 1 - sqrt(1 / 2), 1 - 2 * sqrt(1 / 2) / 6]])


def test_items_without_a_vector_and_empty_places_make_no_pairs() -> None:
    # row 0 is no item, whatever it holds; item 3 has no vector
    units = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [-1.0, 0.0]])
    ids = torch.tensor([[1, 3, 2, 0], [3, 3, 1, 0], [1, 4, 0, 0], [0, 0, 0, 0]])
    close(diversity(ids, units, KS), [[nan, nan, 1], [nan] * 3, [nan, 2, 2], [nan] * 3])


def test_lists_of_equal_items_have_no_diversity() -> None:
    units = F.normalize(torch.randn(1, 7, generator=torch.Generator().manual_seed(0)), dim=1)
    values = diversity(torch.arange(1, 31).unsqueeze(0), units.repeat(31, 1), torch.tensor([2, 30]))
    assert ((values >= 0) & (values < 1e-6)).all()


def test_a_catalogue_without_categories_has_no_diversity() -> None:
    for bags in (torch.zeros(3, 0, dtype=torch.long), torch.zeros(3, 2, dtype=torch.long)):
        assert diversity(torch.tensor([[1, 2, 0]]), category_units(bags), KS).isnan().all()


def test_diversity_by_vector_is_the_mean_over_all_pairs() -> None:
    random = torch.Generator().manual_seed(0)
    units = F.normalize(torch.randn(40, 6, generator=random), dim=1)
    units[::5] = 0
    ids = torch.stack([torch.randperm(40, generator=random)[:12] for _ in range(9)])
    ks = torch.tensor([2, 3, 7, 12, 20, 30])  # the lists end at 12
    values = diversity(ids, units, ks)
    for row, own in zip(ids.tolist(), values.tolist(), strict=True):
        for k, value in zip(ks.tolist(), own, strict=True):
            known = [units[item].double() for item in row[:k] if item % 5]
            pairs = [1 - float(a @ b) for a, b in combinations(known, 2)]
            expected = sum(pairs) / len(pairs) if pairs else nan
            assert value == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_cut_offs_before_the_end_of_the_list_see_no_further() -> None:
    units = torch.eye(5)
    ids = torch.tensor([[1, 2, 2, 2], [3, 3, 4, 1]])
    close(diversity(ids, units, torch.tensor([2])), [[1], [0]])


def test_popularity_weights_fall_with_the_square_root() -> None:
    counts = torch.tensor([0, 1, 4, 100])
    assert popularity_weights(counts).tolist() == pytest.approx([1, 1, 1 / 2, 1 / 10])
    assert popularity_weights(counts, beta=0).tolist() == [1, 1, 1, 1]
    assert popularity_weights(counts, beta=1).tolist() == pytest.approx([1, 1, 1 / 4, 1 / 100])


def test_stratified_recall_by_hand() -> None:
    # targets of weight 1/2 (found first), 1 (found third) and 1/2 (not found)
    relevant = torch.tensor([[True, False, True]])
    weights = torch.tensor([[0.5, 0.1, 1.0]], dtype=torch.float64)
    total = torch.tensor([2.0], dtype=torch.float64)
    values = stratified_recall(relevant, weights, total, KS)
    close(values, [[1 / 4, 1 / 4, 3 / 4]])


def test_stratified_recall_without_weights_is_recall() -> None:
    random = torch.Generator().manual_seed(0)
    relevant = torch.rand(20, 10, generator=random) < 0.3
    total = relevant.sum(1) + 1
    weights = popularity_weights(torch.randint(0, 99, (20, 10), generator=random), beta=0)
    values = stratified_recall(relevant, weights, total.double(), KS)
    torch.testing.assert_close(values, METRICS["Recall"](relevant, total, KS))
