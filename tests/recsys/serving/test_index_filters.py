"""What may be answered and what is no longer there: every index still finds k where k are left."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from feature_store.errors import DataError
from recsys.lists.merging import MERGES, Merge
from recsys.lists.search import search
from recsys.serving.index.base import Index, Queries
from recsys.serving.index.kinds import build_index
from recsys.serving.index.options import (
    ExactConfig,
    FaissConfig,
    HNSWConfig,
    IndexConfig,
    IVFConfig,
    PQConfig,
    PrefixConfig,
)

ITEMS, WIDTH, USERS = 400, 8, 5
EXACT: tuple[IndexConfig, ...] = (
    ExactConfig(),
    PrefixConfig(prefix=8, shortlist=60),
    FaissConfig(factory="Flat"),
    IVFConfig(lists=4, probes=4),
)
APPROXIMATE: tuple[IndexConfig, ...] = (
    FaissConfig(factory="HNSW8,Flat"),
    FaissConfig(factory="IVF16,Flat"),
    IVFConfig(lists=16, probes=2),
    IVFConfig(codes="sq8", probes=2),
    PQConfig(parts=4, lists=16, probes=2, shortlist=2),
    PQConfig(refine="sq8", lists=4, probes=4, shortlist=8),
    HNSWConfig(),
    HNSWConfig(codes="sq8", neighbours=8, effort=8),
    PrefixConfig(prefix=2, shortlist=20),
)


@pytest.fixture(scope="module")
def vectors() -> Tensor:
    return torch.randn(ITEMS, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def indices(vectors: Tensor) -> dict[IndexConfig, Index]:
    return {config: build_index(vectors, "s", config) for config in (*EXACT, *APPROXIMATE)}


def queries_of(seed: int, interests: int) -> Queries:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(USERS, interests, WIDTH, generator=generator)
    return Queries(vectors, torch.arange(interests, 0, -1.0).repeat(USERS, 1) * 2, "s")


def brute_force(
    queries: Queries, vectors: Tensor, k: int, hidden: Tensor, merge: Merge
) -> tuple[Tensor, Tensor]:
    """Every score, those of `hidden` [B, N] struck out, by the merge itself."""
    scores = queries.vectors @ vectors.T
    scores = scores.masked_fill(hidden.unsqueeze(1), float("-inf"))
    values, places = merge.top_k(scores, queries.weights, k)
    return values, places.masked_fill(values == float("-inf"), -1)


def hidden_of(exclude: Tensor, allowed: Tensor) -> Tensor:
    hidden = torch.zeros(len(exclude), ITEMS + 1, dtype=torch.bool)
    hidden.scatter_(1, exclude.masked_fill(exclude < 0, ITEMS), True)
    return hidden[:, :ITEMS] | ~allowed


CASES = given(
    seed=st.integers(0, 1000),
    left=st.sampled_from([0, 1, 3, 15, 60, 99, 101, 250, ITEMS]),
    k=st.sampled_from([1, 7, 30]),
    interests=st.sampled_from([1, 3]),
    merge=st.sampled_from(list(MERGES.values())),
)


def drawn(seed: int, left: int) -> tuple[Tensor, Tensor]:
    """Which are allowed [N], `left` of them, and lists [B, L] of excluded ones with repeats."""
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.zeros(ITEMS, dtype=torch.bool)
    allowed[torch.randperm(ITEMS, generator=generator)[:left]] = True
    return allowed, torch.randint(-1, ITEMS // 4, (USERS, 9), generator=generator)


@settings(max_examples=40, deadline=None)
@CASES
def test_the_best_of_the_allowed_are_those_of_brute_force(
    indices: dict[IndexConfig, Index],
    vectors: Tensor,
    seed: int,
    left: int,
    k: int,
    interests: int,
    merge: Merge,
) -> None:
    allowed, exclude = drawn(seed, left)
    queries = queries_of(seed, interests)
    expected = brute_force(queries, vectors, k, hidden_of(exclude, allowed), merge)
    answers = [search(*queries[:2], vectors, k, exclude, merge, allowed)]
    for config in EXACT:
        if merge.name == "score" or config.kind != "prefix":  # whose shortlist is that by score
            answers.append(indices[config].search(queries, k, exclude, merge, allowed))
    for scores, places in answers:
        assert places.tolist() == expected[1].tolist()
        torch.testing.assert_close(scores, expected[0])


@settings(max_examples=40, deadline=None)
@CASES
def test_k_are_found_wherever_k_are_left(
    indices: dict[IndexConfig, Index],
    vectors: Tensor,
    seed: int,
    left: int,
    k: int,
    interests: int,
    merge: Merge,
) -> None:
    allowed, exclude = drawn(seed, left)
    queries = queries_of(seed, interests)
    hidden = hidden_of(exclude, allowed)
    scores_of_all = queries.vectors @ vectors.T
    for index_config, index in indices.items():
        scores, places = index.search(queries, k, exclude, merge, allowed)
        assert places.shape == scores.shape == (USERS, k)
        for row in range(USERS):
            there = places[row][places[row] >= 0]
            assert len(there) == len(there.unique()) == min(k, int((~hidden[row]).sum()))
            assert not hidden[row, there].any()
            of_interests = scores_of_all[row][:, there]
            slack = 0.2 if "sq8" in str(index_config) else 1e-4
            assert ((of_interests - scores[row, : len(there)]).abs().amin(0) < slack).all()


@pytest.mark.parametrize("config", (*EXACT, *APPROXIMATE), ids=str)
def test_what_was_removed_is_never_answered_and_nobody_else_moves(
    config: IndexConfig, vectors: Tensor
) -> None:
    index, queries = build_index(vectors, "s", config), queries_of(3, 1)
    before = index.search(queries, 5)[1]
    index.remove(before.flatten())
    index.add(vectors[:2] * 100, "s")  # behind all that ever were there
    after = index.search(queries, 10)[1]
    assert not torch.isin(after, before).any()
    assert (after >= 0).all() and (after < ITEMS + 2).all()
    index.remove(torch.tensor([ITEMS, ITEMS + 1]))
    allowed = torch.ones(ITEMS + 2, dtype=torch.bool)
    _, last = index.search(queries, ITEMS + 2, allowed=allowed)
    gone = before.unique()
    kept = torch.isin(torch.arange(ITEMS), gone, invert=True).nonzero().squeeze(1)
    assert all(sorted(row[row >= 0].tolist()) == kept.tolist() for row in last)


def test_a_mask_of_others_and_a_place_that_is_not_there_are_refused(vectors: Tensor) -> None:
    index = build_index(vectors, "s", ExactConfig())
    with pytest.raises(DataError, match=r"allowed is torch.bool \[3\], and must be .* \[400\]"):
        index.search(queries_of(0, 1), 5, allowed=torch.ones(3, dtype=torch.bool))
    with pytest.raises(DataError, match=r"allowed is torch.int64"):
        index.search(queries_of(0, 1), 5, allowed=torch.arange(ITEMS))
    with pytest.raises(DataError, match=r"no item at place 400 of an index of 400"):
        index.remove(torch.tensor([0, ITEMS]))
    assert index.live is None
