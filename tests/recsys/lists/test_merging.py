"""Quota merging: shares of places, and who gets what several interests want."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.lists.merging import BY_QUOTA, BY_SCORE, MERGES, Merge, quotas_of
from recsys.lists.search import search
from recsys.serving.index.base import Queries
from recsys.serving.index.faiss import FaissIndex
from recsys.serving.index.options import FaissConfig

WEIGHTS = st.lists(st.integers(0, 7), min_size=1, max_size=5)


def by_hand(weights: list[int], k: int) -> list[int]:
    """The largest remainder in fractions."""
    total = sum(weights)
    if not total:
        return [0] * len(weights)
    shares = [Fraction(weight * k, total) for weight in weights]
    places = [int(share) for share in shares]
    order = sorted(range(len(weights)), key=lambda j: (places[j] - shares[j], j))
    for j in order[: k - sum(places)]:
        places[j] += 1
    return places


@settings(max_examples=300, deadline=None)
@given(WEIGHTS, st.integers(0, 200))
def test_quotas_are_the_largest_remainders_and_fill_the_list(weights: list[int], k: int) -> None:
    found = quotas_of(torch.tensor([weights], dtype=torch.float32) / 7, k)[0].tolist()
    assert found == by_hand(weights, k)
    assert sum(found) == (k if any(weights) else 0)


def deal_by_hand(
    scores: Tensor, quotas: list[int], present: list[bool], hidden: set[int], k: int
) -> list[int]:
    """All pairs from the best score down; ties: the lower item, then the lower interest."""
    pairs = [
        (-float(scores[j, item]), item, j)
        for j in range(len(scores))
        for item in range(scores.shape[1])
        if present[j] and item not in hidden
    ]
    left, taken = list(quotas), set()
    for _, item, j in sorted(pairs):
        if left[j] and item not in taken:
            taken.add(item)
            left[j] -= 1
    best = {
        item: max(float(s) for s, p in zip(scores[:, item], present, strict=True) if p)
        for item in taken
    }
    return sorted(taken, key=lambda item: (-best[item], item))[:k]


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    users=st.integers(0, 5),
    interests=st.integers(1, 4),
    k=st.integers(1, 14),
    levels=st.sampled_from([1, 3, 100]),
)
def test_the_list_is_that_of_a_plain_loop(
    seed: int, users: int, interests: int, k: int, levels: int
) -> None:
    """Without repeats, full while candidates last, and in the order of the best scores."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(-levels, levels + 1, (users, interests, 3), generator=generator).float()
    weights = torch.randint(0, 4, (users, interests), generator=generator)
    items = torch.randint(-levels, levels + 1, (11, 3), generator=generator).float()
    exclude = torch.randint(-1, 11, (users, 3), generator=generator)
    scores, places = search(queries, weights.float(), items, k, exclude, merge=BY_QUOTA)
    assert places.shape == scores.shape == (users, min(k, 11))
    for user in range(users):
        hidden, present = set(exclude[user].tolist()), (weights[user] > 0).tolist()
        quotas = by_hand(weights[user].tolist(), k)
        expected = deal_by_hand(queries[user] @ items.T, quotas, present, hidden, k)
        assert len(expected) == (min(k, 11 - len(hidden - {-1})) if any(present) else 0)
        found = places[user].tolist()
        assert found == expected + [-1] * (len(found) - len(expected))
        best = (queries[user][weights[user] > 0] @ items.T).T[expected]
        assert scores[user, : len(expected)].tolist() == [max(row.tolist()) for row in best]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), k=st.integers(1, 12))
def test_one_interest_is_merged_as_by_score(seed: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, items = (torch.randn(n, 4, generator=generator) for n in (5, 9))
    weights = torch.tensor([[1.0], [0.5], [0.0], [3.0], [1e-3]])
    by_score, by_quota = (
        search(queries[:, None], weights, items, k, None, merge) for merge in (BY_SCORE, BY_QUOTA)
    )
    assert all(torch.equal(one, other) for one, other in zip(by_score, by_quota, strict=True))


def test_a_weak_interest_gets_its_places_and_goes_on_where_it_loses_an_item() -> None:
    items = torch.tensor([[1.0, 0.0], [0.9, 0.0], [0.6, 0.6], [0.8, 0.0]])
    queries, half = torch.tensor([[[1.0, 0.0], [0.6, 0.6]]]), torch.tensor([[0.5, 0.5]])
    _, by_score = search(queries, half, items, 2)
    assert by_score.tolist() == [[0, 1]]
    _, by_quota = search(queries, half, items, 2, merge=BY_QUOTA)
    assert by_quota.tolist() == [[0, 2]]
    # without 2 both want 0, which suits the first better: the second takes 1
    _, without = search(queries, half, items, 2, torch.tensor([[2]]), merge=BY_QUOTA)
    assert without.tolist() == [[0, 1]]


def test_faiss_merges_as_exact_search_does() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(500, 8, generator=generator)
    queries = torch.randn(20, 3, 8, generator=generator)
    weights = torch.rand(20, 3, generator=generator)
    weights[::3, 1] = 0
    exclude = torch.randint(-1, 500, (20, 40), generator=generator)
    index = FaissIndex.build(vectors, "s", FaissConfig(factory="Flat"))
    scores, places = index.search(Queries(queries, weights, "s"), 30, exclude, BY_QUOTA)
    expected_scores, expected = search(queries, weights, vectors, 30, exclude, BY_QUOTA)
    assert torch.equal(places, expected)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5)


@pytest.mark.parametrize("merge", MERGES.values(), ids=MERGES)
def test_nobody_gets_empty_lists(merge: Merge) -> None:
    scores, columns = merge.top_k(torch.zeros(0, 3, 7), torch.zeros(0, 3), 5)
    assert scores.shape == columns.shape == (0, 5)
