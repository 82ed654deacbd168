"""Top-k: the order of a full stable sort, and exact search with exclusions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from feature_store.errors import DataError
from recsys.lists.search import search
from recsys.lists.top_k import stable_top_k

INF = float("inf")
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.int64]
# few distinct values: nearly every row has a tie across the k-th place
SCORES = arrays(
    np.float32,
    st.tuples(st.integers(0, 5), st.integers(1, 12)),
    elements=st.sampled_from([-INF, -1.0, -1e-40, 0.0, -0.0, 0.5, 2.0, INF]),
)


@pytest.mark.parametrize("dtype", DTYPES)
def test_none_are_none_of_any(dtype: torch.dtype) -> None:
    scores, columns = stable_top_k(torch.zeros(3, 40, dtype=dtype), 0)
    assert scores.shape == columns.shape == (3, 0)
    assert (scores.dtype, columns.dtype) == (dtype, torch.int64)


def stable_sort(scores: Tensor, k: int) -> Tensor:
    """Columns of the k best, by numpy's stable sort of the negated scores."""
    return torch.from_numpy(np.argsort(-scores.double().numpy(), axis=1, kind="stable")[:, :k])


def check(scores: Tensor, k: int) -> None:
    values, columns = stable_top_k(scores, k)
    assert columns.equal(stable_sort(scores, k))
    assert values.dtype == scores.dtype
    assert values.equal(scores.gather(1, columns))


@settings(max_examples=200, deadline=None)
@given(SCORES, st.integers(1, 15))
def test_it_is_the_beginning_of_a_full_stable_sort(scores: np.ndarray, k: int) -> None:
    check(torch.from_numpy(scores), k)


@pytest.mark.parametrize("start", [3.0, -3.0, 1e-3, -1e30])
def test_neighbouring_numbers_are_told_apart(start: float) -> None:
    """Each is the next one that there is in float32."""
    row = [np.float32(start)]
    while len(row) < 40:
        row.append(np.nextafter(row[-1], np.float32(INF)))
    scores = torch.from_numpy(np.random.default_rng(0).permutation(np.array(row))[None])
    for k in (1, 7, 40):
        check(scores, k)


@pytest.mark.parametrize("k", [2, 100, 700])
def test_of_a_row_without_blocks_none_of_the_best_is_missed(k: int) -> None:
    check(torch.randn(50, 16 * 100, generator=torch.Generator().manual_seed(0)), k)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 20),
    blocks=st.floats(8, 300),
    levels=st.sampled_from([1, 2, 5, 50, 1000]),
    hidden=st.sampled_from([0.0, 0.1, 0.999]),
    dtype=st.sampled_from(DTYPES[:3]),
)
def test_long_rows_with_ties_within_and_between_blocks(
    seed: int, k: int, blocks: float, levels: int, hidden: float, dtype: torch.dtype
) -> None:
    random = np.random.default_rng(seed)
    shape = (3, int(k * blocks))
    scores = random.integers(-levels, levels, shape) / 2
    scores[random.random(shape) < hidden] = -INF
    check(torch.from_numpy(scores).to(dtype), k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 7, 100, 1003])
def test_scores_of_any_kind(dtype: torch.dtype, columns: int) -> None:
    scores = torch.randint(-5, 5, (4, columns), generator=torch.Generator().manual_seed(columns))
    check(scores.to(dtype), 7)


def test_float64_scores_are_told_apart_beyond_float32() -> None:
    check(1 + torch.arange(1000, dtype=torch.float64).unsqueeze(0) * 1e-15, 3)


@pytest.mark.parametrize("columns", [10, 1000, 10_000])
def test_all_equal_scores_give_the_first_columns(columns: int) -> None:
    for value in (0.0, -INF):
        _, places = stable_top_k(torch.full((2, columns), value), 5)
        assert places.tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("columns", [10, 1003, 10_003])
@pytest.mark.parametrize("nan", [float("nan"), -float("nan")])
def test_nan_is_refused_wherever_it_is(dtype: torch.dtype, columns: int, nan: float) -> None:
    for place in (0, columns // 2, columns - 1):
        scores = torch.zeros(3, columns, dtype=dtype)
        scores[1, place] = nan
        with pytest.raises(DataError, match="NaN"):
            stable_top_k(scores, 5)


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
@given(
    seed=st.integers(0, 10_000),
    users=st.integers(0, 7),
    interests=st.integers(1, 3),
    k=st.integers(1, 11),
    at_a_time=st.integers(1, 4),
)
def test_search_agrees_with_brute_force_however_it_is_cut(
    seed: int, users: int, interests: int, k: int, at_a_time: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(-2, 3, (users, interests, 4), generator=generator).float()
    weights = torch.randint(0, 3, (users, interests), generator=generator).float()
    items = torch.randint(-2, 3, (9, 4), generator=generator).float()
    exclude = torch.randint(-1, 9, (users, 2), generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsys.lists.search.USERS", at_a_time)
        scores, places = search(queries, weights, items, k, exclude)
    assert places.shape == scores.shape == (users, min(k, 9))
    for user in range(users):
        best = (queries[user][weights[user] > 0] @ items.T).tolist()
        best = [max(of_item) for of_item in zip(*best, strict=True)]
        allowed = [item for item in range(len(best)) if item not in exclude[user].tolist()]
        expected = sorted(allowed, key=lambda item: (-best[item], item))[:k]
        assert places[user].tolist() == expected + [-1] * (min(k, 9) - len(expected))
