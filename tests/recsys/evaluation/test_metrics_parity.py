"""Metrics agree with independent libraries to 1e-9: ranx on lists, scikit-learn on points.

ranx's answers lie in `ranx_answers.json`; `python -m benchmarks.ranx_parity` wrote them and
compares with ranx itself, on many more users.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss as sklearn_log_loss
from sklearn.metrics import ndcg_score, roc_auc_score

from benchmarks.ranx_parity import KS, TOLERANCE, ask_ours, largest_difference, read_answers
from recsys.evaluation.beyond_accuracy import gini
from recsys.evaluation.metrics import METRICS
from recsys.evaluation.money import price_ndcg
from recsys.evaluation.pointwise import auc, auc_by_group, gauc, log_loss
from recsys.lists.top_k import stable_top_k

CLOSE = {"rtol": 0, "atol": TOLERANCE}


def by_rule(scores: np.ndarray) -> list[list[int]]:
    """Item rows, best first: the documented order, spelt out without tensors."""
    return [sorted(range(len(row)), key=lambda item: (-row[item], item)) for row in scores.tolist()]


def test_list_metrics_agree_with_ranx() -> None:
    """On users of every awkward kind: lists that end early or at once, ties at their ends."""
    users, theirs = read_answers()
    assert any(not user.relevant for user in users) and any(not user.length for user in users)
    assert any(0 < user.length < KS[1] for user in users)
    tied = [
        user.scores[user.ranked[-1]] in [user.scores[item] for item in after]
        for user in users
        if user.length and (after := set(range(len(user.scores))) - set(user.ranked))
    ]
    assert sum(tied) > len(users) / 4
    differences = largest_difference(ask_ours(users), theirs)
    assert differences.keys() == METRICS.keys()
    assert {name: gap for name, gap in differences.items() if gap > TOLERANCE} == {}


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 30)), elements=st.integers(0, 3)),
    st.integers(1, 35),
)
def test_tied_scores_are_ranked_by_the_lower_item_row(scores: np.ndarray, k: int) -> None:
    _, ids = stable_top_k(torch.from_numpy(scores).float(), k)
    assert ids.tolist() == [row[:k] for row in by_rule(scores)]


@settings(max_examples=40, deadline=None)
@given(arrays(np.bool_, st.tuples(st.integers(1, 5), st.integers(2, 12))), st.integers(1, 15))
def test_ndcg_agrees_with_scikit_learn(relevant: np.ndarray, k: int) -> None:
    relevant[~relevant.any(1), -1] = True  # a user without relevant items has no NDCG
    falling = -np.arange(relevant.shape[1], dtype=float)
    total = torch.from_numpy(relevant.sum(1))
    ours = METRICS["NDCG"](torch.from_numpy(relevant), total, torch.tensor([k]))
    theirs = [[ndcg_score([row.astype(int)], [falling], k=k)] for row in relevant]
    np.testing.assert_allclose(ours, theirs, **CLOSE)


@settings(max_examples=40, deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 5), st.integers(2, 12)),
        elements=st.sampled_from([0.0, 0.01, 1.0, 2.5, 1e6]),
    ),
    st.integers(1, 15),
)
def test_price_ndcg_agrees_with_scikit_learn(values: np.ndarray, k: int) -> None:
    values[~values.any(1), -1] = 1.0
    falling = -np.arange(values.shape[1], dtype=float)
    money = torch.from_numpy(values)
    ours = price_ndcg(money, money.flip(1), torch.tensor([k]))
    theirs = [[ndcg_score([row], [falling], k=k)] for row in values]
    np.testing.assert_allclose(ours, theirs, **CLOSE)


def test_gini_agrees_with_the_mean_difference_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    for size in (2, 3, 50):
        counts = rng.poisson(2, size) + np.eye(size, dtype=int)[0]
        differences = np.abs(counts[:, None] - counts).sum() / (size * (size - 1))
        np.testing.assert_allclose(gini(counts), differences / (2 * counts.mean()), **CLOSE)


labels_and_scores = st.integers(2, 60).flatmap(
    lambda n: st.tuples(
        arrays(np.int8, n, elements=st.integers(0, 1)),
        # a few values, so that ties are many, and the extremes of a float
        arrays(np.float64, n, elements=st.sampled_from([-1e300, -1.0, 0.0, 1e-300, 0.5, np.inf])),
        arrays(np.int8, n, elements=st.integers(0, 5)),
    )
)


@settings(max_examples=100, deadline=None)
@given(labels_and_scores)
def test_auc_and_gauc_agree_with_scikit_learn(
    rows: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, scores, users = rows
    finite = np.nan_to_num(scores, posinf=1e308)  # scikit-learn takes no infinity
    if 0 < labels.sum() < len(labels):
        assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, finite), abs=1e-9)
    names, areas, counts = auc_by_group(labels, scores, users)
    assert set(names.tolist()) == set(users.tolist())
    won = weight = 0.0
    for name, area, count in zip(names, areas, counts, strict=True):
        own = users == name
        assert count == own.sum()
        if 0 < labels[own].sum() < count:
            theirs = roc_auc_score(labels[own], finite[own])
            assert area == pytest.approx(theirs, abs=1e-9)
            won, weight = won + count * theirs, weight + count
        else:
            assert np.isnan(area)
    expected = won / weight if weight else np.nan
    assert gauc(labels, scores, users) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_auc_agrees_with_scikit_learn_on_many_rows() -> None:
    rng = np.random.default_rng(1)
    scores = np.round(rng.normal(size=200_000), 3)
    labels = rng.random(len(scores)) < 1 / (1 + np.exp(-scores))
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60).flatmap(
        lambda n: st.tuples(
            arrays(np.int8, n, elements=st.integers(0, 1)),
            arrays(np.float64, n, elements=st.floats(0, 1)),
        )
    )
)
def test_log_loss_agrees_with_scikit_learn(rows: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = rows
    theirs = sklearn_log_loss(labels, probabilities, labels=[0, 1])
    assert log_loss(labels, probabilities) == pytest.approx(theirs, abs=1e-9)
