"""Metrics of lists: hand-computed values, and what must hold of any list."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys.evaluation.metrics import METRICS, f1_of_means

# three users: hits at ranks 1 and 3 of 4 relevant; one hit at rank 2 of 1; none of 2
RELEVANT = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
TOTAL = torch.tensor([4, 1, 2])
KS = torch.tensor([1, 3, 9])  # 9 is past the end of the lists
DCG4 = 1 + 1 / log2(3) + 1 / 2 + 1 / log2(5)  # of four hits in a row


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Precision", [[1, 2 / 3, 2 / 9], [0, 1 / 3, 1 / 9], [0, 0, 0]]),
        ("Recall", [[1 / 4, 2 / 4, 2 / 4], [0, 1, 1], [0, 0, 0]]),
        ("HR", [[1, 1, 1], [0, 1, 1], [0, 0, 0]]),
        # 2 P R / (P + R): of 1 and 1/4, of 2/3 and 1/2, of 2/9 and 1/2
        ("F1", [[2 / 5, 4 / 7, 4 / 13], [0, 1 / 2, 1 / 5], [0, 0, 0]]),
        ("MRR", [[1, 1, 1], [0, 1 / 2, 1 / 2], [0, 0, 0]]),
        # the ideal list of user 1 holds 1, 3 and 4 items
        (
            "NDCG",
            [
                [1, 1.5 / (1 + 1 / log2(3) + 1 / 2), 1.5 / DCG4],
                [0, 1 / log2(3), 1 / log2(3)],
                [0, 0, 0],
            ],
        ),
        # precision at ranks 1 and 3 is 1 and 2/3; a perfect list would have 1, 3 and 4 hits
        ("MAP", [[1, (5 / 3) / 3, (5 / 3) / 4], [0, 1 / 2, 1 / 2], [0, 0, 0]]),
    ],
)
def test_values_by_hand(name: str, expected: list[list[float]]) -> None:
    values = METRICS[name](RELEVANT, TOTAL, KS)
    assert values.dtype == torch.float64
    torch.testing.assert_close(values, torch.tensor(expected, dtype=torch.float64))


def test_every_metric_is_among_those_computed_by_hand() -> None:
    assert list(METRICS) == ["Precision", "Recall", "HR", "F1", "NDCG", "MRR", "MAP"]


def test_f1_of_means_is_not_the_mean_of_f1() -> None:
    # at 3 the mean precision is (2/3 + 1/3) / 3 = 1/3 and the mean recall (1/2 + 1) / 3 = 1/2
    combined = f1_of_means(1 / 3, 1 / 2)
    assert combined == pytest.approx(2 / 5)
    assert float(METRICS["F1"](RELEVANT, TOTAL, KS)[:, 1].mean()) == pytest.approx(
        (4 / 7 + 0.5) / 3
    )


def test_f1_of_means_takes_arrays_and_is_0_without_a_hit() -> None:
    np.testing.assert_allclose(
        f1_of_means(np.array([0, 1, 0.5]), np.array([0, 1, 1])), [0, 1, 2 / 3]
    )


def test_a_perfect_list_scores_1() -> None:
    relevant, total = torch.ones(1, 4, dtype=torch.bool), torch.tensor([4])
    ones = torch.ones(1, 4, dtype=torch.float64)
    for name in ("Precision", "HR", "NDCG", "MRR", "MAP"):
        torch.testing.assert_close(METRICS[name](relevant, total, torch.arange(1, 5)), ones)
    # nor by a digit more than 1, in whatever order a sum is taken
    longest = torch.ones(1, 100, dtype=torch.bool)
    for cuts in ([3, 100], [5, 10, 20, 50, 100], [1, 2, 7, 64]):
        found = METRICS["NDCG"](longest, torch.tensor([100]), torch.tensor(cuts))
        assert found.max() <= 1
    # more would not have fitted into the list
    torch.testing.assert_close(METRICS["MAP"](relevant, total + 5, torch.arange(1, 5)), ones)


@pytest.mark.parametrize("users", [0, 2])
def test_lists_without_hits_score_0(users: int) -> None:
    relevant, total = torch.zeros(users, 4, dtype=torch.bool), torch.ones(users, dtype=torch.long)
    for metric in METRICS.values():
        values = metric(relevant, total, KS)
        assert torch.equal(values, torch.zeros(users, 3, dtype=torch.float64))
        assert values.dtype == torch.float64


lists = arrays(np.bool_, st.tuples(st.integers(1, 6), st.integers(1, 12)))
cut_offs = st.sets(st.integers(1, 15), min_size=1, max_size=4).map(sorted)


@settings(max_examples=60, deadline=None)
@given(lists, st.integers(0, 3), cut_offs)
def test_every_metric_lies_between_0_and_1_and_a_better_list_is_not_worse(
    relevant: np.ndarray, unseen: int, ks: list[int]
) -> None:
    found, cuts = torch.from_numpy(relevant), torch.tensor(ks)
    total = (found.sum(1) + unseen).clamp(min=1)
    best, _ = found.to(torch.int8).sort(dim=1, descending=True)
    for metric in METRICS.values():
        values, ideal = metric(found, total, cuts), metric(best.bool(), total, cuts)
        assert values.shape == (len(found), len(ks))
        assert ((values >= 0) & (values <= ideal + 1e-12) & (ideal <= 1 + 1e-12)).all()


@settings(max_examples=60, deadline=None)
@given(lists, st.integers(0, 3), cut_offs)
def test_a_value_depends_on_no_other_user_and_no_other_cut_off(
    relevant: np.ndarray, unseen: int, ks: list[int]
) -> None:
    found, cuts = torch.from_numpy(relevant), torch.tensor(ks)
    total = (found.sum(1) + unseen).clamp(min=1)
    for metric in METRICS.values():
        whole = metric(found, total, cuts)
        for user in range(len(found)):
            one = slice(user, user + 1)
            assert torch.equal(metric(found[one], total[one], cuts), whole[one])
        for place in range(len(ks)):
            alone = metric(found, total, cuts[place : place + 1])
            torch.testing.assert_close(alone, whole[:, place : place + 1], rtol=1e-15, atol=1e-15)
