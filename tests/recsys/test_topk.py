"""Top-k: the order of a full stable sort, and exact search with exclusions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recsys.topk import search, stable_top_k

INF = float("inf")
# few distinct values: nearly every row has a tie across the k-th place
SCORES = arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 12)),
    elements=st.sampled_from([-INF, -1.0, 0.0, -0.0, 0.5, 2.0]),
)


@settings(max_examples=200, deadline=None)
@given(SCORES, st.integers(1, 15))
def test_it_is_the_beginning_of_a_full_stable_sort(scores: np.ndarray, k: int) -> None:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values, columns = stable_top_k(torch.from_numpy(scores), k)
    assert columns.tolist() == order.tolist()
    assert values.tolist() == np.take_along_axis(scores, order, 1).tolist()


def test_all_equal_scores_give_the_first_columns() -> None:
    _, columns = stable_top_k(torch.zeros(2, 10_000), 5)
    assert columns.tolist() == [[0, 1, 2, 3, 4]] * 2


ITEMS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.6], [-1.0, 0.0]])


def test_items_are_ranked_by_inner_product_without_the_excluded() -> None:
    queries, weights = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]]), torch.ones(2, 1)
    scores, places = search(queries, weights, ITEMS, 2)
    assert places.tolist() == [[0, 2], [1, 2]]
    torch.testing.assert_close(scores, torch.tensor([[1.0, 0.6], [2.0, 1.2]]))
    _, places = search(queries, weights, ITEMS, 2, torch.tensor([[0, -1], [2, 1]]))
    assert places.tolist() == [[2, 1], [0, 3]]


def test_an_item_scores_as_its_best_interest_and_appears_once() -> None:
    queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    scores, places = search(queries, torch.ones(1, 2), ITEMS, 4)
    assert places.tolist() == [[0, 1, 2, 3]]
    torch.testing.assert_close(scores, torch.tensor([[1.0, 1.0, 0.6, 0.0]]))


@pytest.mark.parametrize("interests", [1, 2])
def test_an_interest_of_weight_0_is_not_there(interests: int) -> None:
    queries = torch.tensor([[[9.0, 0.0], [0.0, 1.0]]])[:, :interests]
    weights = torch.tensor([[0.0, 1.0]])[:, :interests]
    _, places = search(queries, weights, ITEMS, 2)
    assert places.tolist() == ([[-1, -1]] if interests == 1 else [[1, 2]])


def test_short_of_items_the_list_ends_in_minus_1() -> None:
    exclude = torch.tensor([[0, 1, 2, -1]])
    scores, places = search(torch.ones(1, 1, 2), torch.ones(1, 1), ITEMS, 3, exclude)
    assert places.tolist() == [[3, -1, -1]]
    assert scores.tolist() == [[-1.0, -INF, -INF]]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 8))
def test_search_agrees_with_brute_force(seed: int, interests: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(-2, 3, (3, interests, 4), generator=generator).float()
    items = torch.randint(-2, 3, (9, 4), generator=generator).float()
    exclude = torch.randint(-1, 9, (3, 2), generator=generator)
    _, places = search(queries, torch.ones(3, interests), items, k, exclude)
    for user in range(3):
        best = (queries[user] @ items.T).amax(0).tolist()
        allowed = [item for item in range(9) if item not in exclude[user].tolist()]
        expected = sorted(allowed, key=lambda item: (-best[item], item))[:k]
        assert places[user].tolist() == expected + [-1] * (k - len(expected))
