"""Indices: approximate ones answer as the exact one does, and all grow and come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from feature_store.errors import ConfigError, DataError
from recsys.serving.index.base import Queries
from recsys.serving.index.exact import ExactIndex
from recsys.serving.index.faiss import FaissIndex
from recsys.serving.index.kinds import build_index, load_index, recall_against_exact
from recsys.serving.index.options import ExactConfig, FaissConfig, IndexConfig, PrefixConfig


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


@pytest.mark.parametrize("config", [ExactConfig(), FaissConfig(), PrefixConfig(prefix=8)])
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


def test_an_index_grows_and_comes_back_from_disk(vectors: torch.Tensor, tmp_path: Path) -> None:
    config = FaissConfig()
    for index in (
        build_index(vectors[:2000], "s", ExactConfig()),
        build_index(vectors[:2000], "s", config),
    ):
        index.add(vectors[2000:], "s")
        assert len(index.vectors) == 3000
        big = 100 * vectors[2500]
        scores, places = index.search(one_query(big), 1)
        assert places.tolist() == [[2500]]
        assert scores.item() == pytest.approx(float(big @ vectors[2500]), rel=1e-5)
    assert isinstance(index, FaissIndex)
    index.save(tmp_path)
    again = load_index(tmp_path.joinpath, vectors, "s", config)
    assert again.search(one_query(big), 1)[1].tolist() == [[2500]]
    (tmp_path / "index.faiss").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"index\.faiss cannot be read"):
        load_index(tmp_path.joinpath, vectors, "s", config)


@pytest.mark.parametrize("config", [ExactConfig(), FaissConfig(), PrefixConfig(prefix=8)])
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
