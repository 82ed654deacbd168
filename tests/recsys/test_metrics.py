"""Metrics: hand-computed values, and agreement with scikit-learn."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import ndcg_score
from torch import Tensor

from recsys.evaluation.metrics import METRICS, coverage

# three users: hits at ranks 1 and 3 of 4 relevant; one hit at rank 2 of 1; none of 2
RELEVANT = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
TOTAL = torch.tensor([4, 1, 2])


@pytest.mark.parametrize(
    ("name", "k", "expected"),
    [
        ("Recall", 1, [1 / 4, 0, 0]),
        ("Recall", 3, [2 / 4, 1, 0]),
        ("HR", 1, [1, 0, 0]),
        ("HR", 3, [1, 1, 0]),
        ("MRR", 1, [1, 0, 0]),
        ("MRR", 3, [1, 1 / 2, 0]),
        ("NDCG", 1, [1, 0, 0]),
        ("NDCG", 3, [1.5 / (1 + 1 / log2(3) + 1 / 2), 1 / log2(3), 0]),
        # k past the end of the list: the ideal still holds 4 items
        ("NDCG", 9, [1.5 / (1 + 1 / log2(3) + 1 / 2 + 1 / log2(5)), 1 / log2(3), 0]),
        ("Recall", 9, [2 / 4, 1, 0]),
        ("HR", 9, [1, 1, 0]),
        ("MRR", 9, [1, 1 / 2, 0]),
    ],
)
def test_values_by_hand(name: str, k: int, expected: list[float]) -> None:
    assert METRICS[name](RELEVANT, TOTAL, k).tolist() == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.bool_, st.tuples(st.integers(1, 5), st.integers(2, 12))),
    st.integers(1, 15),
)
def test_ndcg_agrees_with_scikit_learn(relevant: np.ndarray, k: int) -> None:
    relevant[~relevant.any(1), -1] = True  # a user without relevant items has no NDCG
    ranks = -np.arange(relevant.shape[1], dtype=float)
    own = METRICS["NDCG"](torch.from_numpy(relevant), torch.from_numpy(relevant.sum(1)), k)
    for row, value in zip(relevant, own.tolist(), strict=True):
        assert value == pytest.approx(ndcg_score([row.astype(int)], [ranks], k=k))


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.bool_, st.tuples(st.integers(1, 5), st.integers(1, 9))),
    st.integers(0, 3),
    st.integers(1, 8),
)
def test_every_metric_lies_between_0_and_1_and_a_better_list_is_not_worse(
    relevant: np.ndarray, unseen: int, k: int
) -> None:
    found = torch.from_numpy(relevant)
    total = (found.sum(1) + unseen).clamp(min=1)
    best, _ = found.to(torch.int8).sort(dim=1, descending=True)
    for metric in METRICS.values():
        values, ideal = metric(found, total, k), metric(best.bool(), total, k)
        assert ((values >= 0) & (values <= ideal) & (ideal <= 1 + 1e-12)).all()


def test_coverage_counts_distinct_items_and_not_the_filling() -> None:
    lists: Tensor = torch.tensor([[3, 4, 0], [4, 5, 3]])
    assert coverage(lists, candidates=12) == pytest.approx(3 / 12)
    assert coverage(torch.zeros(2, 3, dtype=torch.long), candidates=12) == 0
