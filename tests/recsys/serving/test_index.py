"""Indices: approximate ones answer as the exact one does, and all grow and come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from feature_store.errors import ConfigError, DataError
from recsys.lists.merging import MERGES, Merge
from recsys.serving.index.base import Queries
from recsys.serving.index.exact import ExactIndex
from recsys.serving.index.kinds import build_index, load_index, recall_against_exact
from recsys.serving.index.options import (
    ExactConfig,
    FaissConfig,
    HNSWConfig,
    IndexConfig,
    IVFConfig,
    PQConfig,
    PrefixConfig,
)

KINDS: tuple[IndexConfig, ...] = (
    ExactConfig(),
    FaissConfig(),
    PrefixConfig(prefix=8),
    IVFConfig(),
    IVFConfig(codes="fp16"),
    IVFConfig(codes="sq8"),
    PQConfig(),
    PQConfig(refine="sq8", parts=4),
    HNSWConfig(),
    HNSWConfig(codes="sq8"),
)


@pytest.fixture(scope="module")
def vectors() -> torch.Tensor:
    return torch.randn(3000, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def queries() -> Queries:
    """Of two interests, of which every other user has but one."""
    weights = torch.ones(64, 2)
    weights[::2, 1] = 0
    vectors = torch.randn(64, 2, 16, generator=torch.Generator().manual_seed(1))
    return Queries(vectors, weights, "s")


def one_query(vector: torch.Tensor, space: str = "s") -> Queries:
    return Queries(vector[None, None], torch.ones(1, 1), space)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_an_index_refuses_another_space(config: IndexConfig, vectors: torch.Tensor) -> None:
    index = build_index(vectors, "here", config)
    index.search(one_query(vectors[0], "here"), 3)
    with pytest.raises(DataError, match=r"space there .* space here"):
        index.search(one_query(vectors[0], "there"), 3)
    with pytest.raises(DataError, match="space there"):
        index.add(vectors, "there")
    assert len(index.vectors) == len(vectors)


@pytest.mark.parametrize("factory", ["HNSW32,Flat", "IVF8,Flat", "Flat"])
def test_faiss_finds_what_exact_search_finds(
    factory: str, vectors: torch.Tensor, queries: Queries
) -> None:
    """In the same order, with the exact scores, and never what is excluded."""
    config = FaissConfig(factory=factory)
    index, exact = build_index(vectors, "s", config), ExactIndex(vectors, "s")
    _, best = exact.search(queries, 40)
    exclude = torch.cat([best[:, ::2], torch.full((64, 5), -1)], dim=1)
    scores, places = index.search(queries, 30, exclude)
    expected_scores, expected = exact.search(queries, 30, exclude)
    for row in range(64):
        found = places[row].tolist()
        assert len(set(found)) == 30 and not set(found) & set(exclude[row].tolist())
    pairs = zip(places.tolist(), expected.tolist(), strict=True)
    overlap = [len(set(a) & set(b)) / 30 for a, b in pairs]
    assert np.mean(overlap) > (0.3 if factory.startswith("IVF") else 0.95)
    same = places == expected
    torch.testing.assert_close(scores[same], expected_scores[same])
    assert (scores.diff(dim=1) <= 0).all()


def test_recall_is_measured(vectors: torch.Tensor, queries: Queries) -> None:
    recalls = {
        factory: recall_against_exact(
            build_index(vectors, "s", FaissConfig(factory=factory)), queries
        )
        for factory in ("Flat", "HNSW32,Flat", "IVF64,Flat")
    }
    assert recalls["Flat"] == 1.0
    assert recalls["HNSW32,Flat"] > 0.95 > recalls["IVF64,Flat"] > 0.0


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_an_index_grows_and_comes_back_from_disk(
    config: IndexConfig, vectors: torch.Tensor, tmp_path: Path
) -> None:
    index = build_index(vectors[:2000], "s", config)
    index.add(vectors[2000:], "s")
    assert len(index) == len(index.vectors) == 3000
    big = 100 * vectors[2500]
    scores, places = index.search(one_query(big), 1)
    assert places.tolist() == [[2500]]
    # a code of one byte ends at the largest number that it was made for
    coarse = {"sq8": 3e-2, "fp16": 1e-3}
    slack = next((coarse[codes] for codes in coarse if codes in str(config)), 1e-5)
    assert scores.item() == pytest.approx(float(big @ vectors[2500]), rel=slack)
    index.save(tmp_path)
    again = load_index(tmp_path.joinpath, vectors, "s", config)
    assert again.search(one_query(big), 1)[1].tolist() == [[2500]]
    assert again.bytes == index.bytes
    index.remove(torch.tensor([2500, 7]))
    with pytest.raises(DataError, match="2 items were removed"):
        index.save(tmp_path)


@pytest.mark.parametrize("config", [FaissConfig(), IVFConfig(), PQConfig(), HNSWConfig()], ids=str)
def test_a_torn_file_and_one_of_another_kind_are_named(
    config: IndexConfig, vectors: torch.Tensor, tmp_path: Path
) -> None:
    (tmp_path / "index.faiss").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"index\.faiss cannot be read"):
        load_index(tmp_path.joinpath, vectors, "s", config)
    other = HNSWConfig() if isinstance(config, IVFConfig) else IVFConfig()
    build_index(vectors, "s", other).save(tmp_path)
    if not isinstance(config, FaissConfig):
        with pytest.raises(DataError, match=rf"is no index of kind '{config.kind}'"):
            load_index(tmp_path.joinpath, vectors, "s", config)
    with pytest.raises(DataError, match=r"is of 3000 vectors of width 16, the bundle's are \[30"):
        load_index(tmp_path.joinpath, vectors[:30], "s", other)


def test_bytes_are_those_of_what_a_search_keeps_in_memory() -> None:
    """By hand: 4 bytes a number, 2 or 1, 8 of an id, 4 bits for two numbers; links of HNSW."""
    vectors = torch.randn(5_000, 64, generator=torch.Generator().manual_seed(0))
    expected = {
        ExactConfig(): 256,
        PrefixConfig(prefix=8): 256 + 32,
        IVFConfig(lists=16): 256 + 8,
        IVFConfig(lists=16, codes="fp16"): 128 + 8,
        IVFConfig(lists=16, codes="sq8"): 64 + 8,
        PQConfig(lists=16): 16 + 8 + 256,
        PQConfig(lists=16, refine="sq8"): 16 + 8 + 64,
    }
    for config, each in expected.items():
        held = build_index(vectors, "s", config).bytes / len(vectors)
        assert each <= held < each + 4, config  # 16 centres are 0.8 bytes an item


@pytest.mark.parametrize("merge", MERGES.values(), ids=MERGES)
def test_lists_of_interests_are_merged_as_all_scores_are(
    merge: Merge, vectors: torch.Tensor
) -> None:
    """With every list read nothing is missed."""
    generator = torch.Generator().manual_seed(2)
    weights = torch.tensor([[4.0, 3.0, 2.0], [1.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    if merge.name == "rounds":
        weights = torch.tensor([[4.0, 3.0, 9.0]]).repeat(3, 1)
    queries = Queries(torch.randn(3, 3, 16, generator=generator), weights, "s")
    exclude = torch.randint(-1, 3000, (3, 50), generator=generator)
    index = build_index(vectors, "s", IVFConfig(lists=8, probes=8))
    scores, places = index.search(queries, 20, exclude, merge)
    expected_scores, expected = ExactIndex(vectors, "s").search(queries, 20, exclude, merge)
    assert torch.equal(places, expected)
    torch.testing.assert_close(scores, expected_scores)


@pytest.mark.parametrize("config", KINDS, ids=str)
def test_more_than_there_is(config: IndexConfig, vectors: torch.Tensor) -> None:
    index = build_index(vectors[:20], "s", config)
    exclude = torch.arange(5)[None]
    scores, places = index.search(one_query(vectors[0]), 50, exclude)
    found = places[places >= 0].tolist()
    assert sorted(found) == list(range(5, 20))
    assert (scores[0, : len(found)] > -np.inf).all() and (scores[places < 0] == -np.inf).all()


@pytest.mark.parametrize("factory", ["Nonsense", "IVF4096,Flat"])
def test_a_factory_that_faiss_cannot_make_is_named(factory: str, vectors: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=rf"export\.index\.factory = '{factory}'") as caught:
        build_index(vectors[:50], "s", FaissConfig(factory=factory))
    assert "\n" not in str(caught.value)
