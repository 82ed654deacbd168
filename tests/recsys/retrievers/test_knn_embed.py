"""kNN-Embed: mixtures by hand, smoothing, and what it takes from a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from conformance import answer, batch_from, bundle_of, fresh, learn, request_table, small, training
from feature_store.columns import HISTORY
from feature_store.errors import ConfigError
from feature_store.event_log import EventLog
from feature_store.protocols import TRAIN, VALIDATION
from planted import Shape
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.lists.merging import quotas_of
from recsys.lists.search import search
from recsys.retrievers.base import VectorRetriever
from recsys.retrievers.base_vectors import vectors_of
from recsys.retrievers.knn_embed import KNNEmbed
from recsys.retrievers.mixtures import Mixtures, mixtures_of, nearest_users, spherical_clusters
from recsys.serving.recommender import Recommender

# items 1 and 2 lie in cluster 0, 3 and 4 in cluster 1, 5 in cluster 2
ITEMS = torch.tensor([[0.0, 0], [1, 0], [3, 2], [0, 1], [2, 5], [-1, -1]])
CLUSTERS = torch.tensor([0, 0, 0, 1, 1, 2])


@pytest.fixture
def examples(planted: dict[Shape, Examples]) -> Examples:
    return planted["sequences"]


def matrix(*lists: list[int], items: int = 6) -> sp.csr_array:
    dense = np.zeros((len(lists), items), np.float32)
    for row, found in enumerate(lists):
        dense[row, found] = 1
    return sp.csr_array(dense)


def random_log(seed: int) -> tuple[sp.csr_array, Tensor, Tensor]:
    """Who had what of 30 users and 40 items, with their vectors."""
    generator = torch.Generator().manual_seed(seed)
    seen = (torch.rand(30, 40, generator=generator) < 0.2).float()
    seen[0] = seen[:, 0] = 0
    users = torch.randn(30, 8, generator=generator)
    return sp.csr_array(seen.numpy()), users, torch.randn(40, 8, generator=generator)


def fitted(examples: Examples, seed: int = 0, **options: Any) -> KNNEmbed:
    """Fitted on vectors that are no retriever's."""
    made = fresh(small("knn_embed", **options), examples)
    assert isinstance(made, KNNEmbed)
    made.fit_vectors(*random_log(seed))
    return made


def test_a_mixture_by_hand() -> None:
    found = mixtures_of(matrix([], [1, 2, 3], [5], [3, 4, 5, 1, 2]), ITEMS, CLUSTERS, 2)
    torch.testing.assert_close(
        found.weights, torch.tensor([[0, 0], [2 / 3, 1 / 3], [1, 0], [0.5, 0.5]])
    )
    expected = [[[0.0, 0], [0, 0]], [[2, 1], [0, 1]], [[-1, -1], [0, 0]], [[2, 1], [1, 3]]]
    torch.testing.assert_close(found.vectors, torch.tensor(expected))


def test_smoothing_by_hand() -> None:
    """User 1 has the neighbours 2 and 3: shares and centroids of each cluster, mixed 0.6 to 0.4."""
    seen = matrix([], [1, 2, 3], [4], [3, 5])
    nearest = torch.tensor([[-1, -1], [2, 3], [1, -1], [-1, -1]])
    found = mixtures_of(seen, ITEMS, CLUSTERS, 3, 0.6, nearest)
    # p = (2/3, 1/3, 0); of the neighbours (0, 1, 0) and (0, 1/2, 1/2)
    weights = [0.6 / 3 + 0.4 * 0.75, 0.6 * 2 / 3, 0.4 * 0.25]
    torch.testing.assert_close(found.weights[1], torch.tensor(weights))
    second = 0.6 * torch.tensor([0.0, 1]) + 0.4 * torch.tensor([1.0, 3])  # of [2, 5] and [0, 1]
    expected = torch.stack([second, torch.tensor([2.0, 1]), torch.tensor([-1.0, -1])])
    torch.testing.assert_close(found.vectors[1], expected)
    # user 2 has one neighbour: p = (0, 1, 0) with (2/3, 1/3, 0)
    torch.testing.assert_close(
        found.weights[2], torch.tensor([0.6 + 0.4 / 3, 0.4 * 2 / 3, 0]), atol=1e-6, rtol=0
    )
    # user 3 has none: its own share alone is left, and is the whole again
    plain = mixtures_of(seen, ITEMS, CLUSTERS, 3)
    torch.testing.assert_close(found.weights[3], plain.weights[3])
    torch.testing.assert_close(found.vectors[3], plain.vectors[3])


@settings(deadline=None)
@given(seed=st.integers(0, 50), keep=st.integers(1, 8), users=st.integers(1, 29))
def test_a_share_of_one_is_the_plain_mixture_bit_for_bit(seed: int, keep: int, users: int) -> None:
    seen, vectors, items = random_log(seed)
    clusters = torch.arange(40) % 7
    nearest = nearest_users(vectors, torch.from_numpy(seen.count_nonzero(1) > 0), users)
    smoothed = mixtures_of(seen, items, clusters, keep, 1.0, nearest)
    plain = mixtures_of(seen, items, clusters, keep)
    assert torch.equal(smoothed.vectors, plain.vectors)
    assert torch.equal(smoothed.weights, plain.weights)


def test_smoothed_with_a_share_of_one_answers_as_the_mixture(examples: Examples) -> None:
    plain = fitted(examples, mode="mixture")
    smoothed = fitted(examples, mode="smoothed", mixing_weight=1.0)
    requests = {"user_id": torch.arange(30), HISTORY: torch.zeros(30, 3, dtype=torch.int64)}
    for one, other in zip(plain.encode(requests), smoothed.encode(requests), strict=True):
        assert torch.equal(one, other)


@settings(deadline=None)
@given(seed=st.integers(0, 50), share=st.floats(0, 1), keep=st.integers(1, 9))
def test_smoothing_against_loops(seed: int, share: float, keep: int) -> None:
    """In any number of clusters; all that is kept weighs 1 together."""
    seen, vectors, items = random_log(seed)
    clusters = torch.arange(40) % 7
    known = torch.from_numpy(seen.count_nonzero(1) > 0)
    nearest = nearest_users(vectors, known, 4)
    found = mixtures_of(seen, items, clusters, keep, share, nearest)
    dense = torch.from_numpy(seen.toarray())
    in_cluster = dense.unsqueeze(1) * torch.nn.functional.one_hot(clusters).T  # [U, C, N]
    counts = in_cluster.sum(2)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    means = in_cluster @ items / counts.clamp(min=1).unsqueeze(2)
    for user in known.nonzero().flatten().tolist():
        near = nearest[user].tolist()
        p = share * shares[user] + (1 - share) * shares[near].mean(0)
        order = p.argsort(descending=True, stable=True)[:keep].tolist()
        weights = p[order] / p[order].sum()
        torch.testing.assert_close(found.weights[user, : len(order)], weights, atol=1e-5, rtol=1e-4)
        for place, (vector, weight) in enumerate(zip(*(f[user] for f in found), strict=True)):
            # the cluster is found by its centroid: ties of shares may fall either way
            if weight > 1e-5 and place < len(order):
                candidates = [
                    smoothed_mean(user, near, cluster, share, counts, means)
                    for cluster in range(7)
                    if abs(float(p[cluster] - p[order[place]])) < 1e-5
                ]
                assert any(torch.allclose(vector, c, atol=1e-4) for c in candidates)


def smoothed_mean(
    user: int, near: list[int], cluster: int, share: float, counts: Tensor, means: Tensor
) -> Tensor:
    theirs = [means[v, cluster] for v in near if counts[v, cluster]]
    if not theirs:
        return means[user, cluster]
    other = torch.stack(theirs).mean(0)
    if not counts[user, cluster]:
        return other
    return share * means[user, cluster] + (1 - share) * other


def test_a_user_with_one_cluster_asks_for_the_mean_of_the_items(examples: Examples) -> None:
    model = fitted(examples, mode="mixture")
    rows = (model.clusters == model.clusters[3]).nonzero().flatten()
    rows = rows[rows > 0]
    seen = random_log(0)[0].toarray()
    seen[5] = 0
    seen[5, rows.numpy()] = 1
    again = fresh(small("knn_embed", mode="mixture"), examples)
    _, users, items = random_log(0)
    again.fit_vectors(sp.csr_array(seen), users, items)
    assert torch.equal(again.clusters, model.clusters)
    vectors, weights = again.encode(
        {"user_id": torch.tensor([5]), HISTORY: torch.zeros(1, 1, dtype=torch.int64)}
    )
    assert weights[0].tolist() == [1, 0, 0, 0, 0]
    torch.testing.assert_close(vectors[0, 0, :-1], items[rows].mean(0))


@pytest.mark.parametrize("mode", ["single", "mixture", "smoothed"])
def test_quotas_fill_the_list(examples: Examples, mode: str) -> None:
    model = fitted(examples, mode=mode)
    known = model.known.nonzero().flatten()
    weights = model.weights[known]
    torch.testing.assert_close(weights.sum(1), torch.ones(len(known)))
    assert (quotas_of(weights, 17).sum(1) == 17).all()
    assert weights.shape[1] == (1 if mode == "single" else 5)


@pytest.mark.parametrize("mode", ["single", "mixture", "smoothed"])
@pytest.mark.parametrize("normalise", [False, True])
def test_unknown_users(examples: Examples, mode: str, normalise: bool) -> None:
    """By the clusters in their history, by no one's cluster in particular without one."""
    model = fitted(examples, mode=mode, normalise=normalise)
    history = torch.tensor([[7, 3, 7, 9, 0, 0], [0, 0, 0, 0, 0, 0]])
    vectors, weights = model.encode({"user_id": torch.tensor([0, 0]), HISTORY: history})
    asked = (model.interests * model.weights.unsqueeze(2)).sum(1)[model.known].mean(0)
    torch.testing.assert_close(vectors[1, 0, :-1], asked)
    assert weights[1].tolist() == [1.0, *[0.0] * (weights.shape[1] - 1)]
    known = mixtures_of(
        matrix([3, 7, 9], items=40), model.vectors, model.clusters, weights.shape[1]
    )
    expected = torch.nn.functional.normalize(known.vectors[0], dim=1) if normalise else known[0][0]
    torch.testing.assert_close(weights[0], known.weights[0])
    # clusters of equal weight may stand in either order
    for vector in expected:
        assert any(torch.allclose(vector, found, atol=1e-6) for found in vectors[0, :, :-1])


def test_the_nearest_users() -> None:
    vectors = torch.tensor([[9.0, 9], [1, 0], [5, 1], [0, 2], [1, 0]])
    known = torch.tensor([False, True, True, True, True])
    found = nearest_users(vectors, known, 2)
    assert found.tolist() == [[-1, -1], [4, 2], [1, 4], [2, 1], [1, 2]]
    lonely = nearest_users(vectors, torch.tensor([False, True, True, False, False]), 2)
    assert lonely.tolist() == [[-1, -1], [2, -1], [1, -1], [-1, -1], [-1, -1]]


def test_clusters_are_of_directions() -> None:
    angles = torch.tensor([0.1, 0.0, 2.0, 2.1, 4.0, 4.1, 0.05])
    vectors = torch.stack([angles.cos(), angles.sin()], 1) * torch.arange(1, 8).unsqueeze(1)
    found = spherical_clusters(vectors, torch.arange(6), 3).tolist()
    assert found[0] == found[1] == found[6] and found[2] == found[3] and found[4] == found[5]
    assert len(set(found)) == 3
    assert spherical_clusters(vectors, torch.arange(2), 5).max() == 1


def bundle(
    retriever: VectorRetriever, examples: Examples, log: EventLog, folder: Path, **record: Any
) -> Path:
    """A run's folder with a bundle; `record` replaces what its manifest says of the generator."""
    bundle_of(retriever, examples, log, folder / "bundle")
    path = folder / "bundle" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["parts"]["generator"] |= record
    path.write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("name", ["als", "graph", "two_tower"])
def test_the_vectors_of_a_run(
    name: str,
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    group: Group,
    tmp_path: Path,
) -> None:
    """Those that the run's retriever gives for what is known of users before the validation."""
    shape: Shape = "sequences" if name == "als" else "events"
    base = learn(small(name), planted[shape], tmp_path / "run", group, training(epochs=1))
    folder = bundle(base, planted[shape], planted_log, tmp_path)
    examples = planted["sequences"]
    events = examples.interactions()
    users, items = vectors_of(folder, events, examples)
    candidates = examples.candidates()
    torch.testing.assert_close(items[candidates], base.item_matrix(candidates))
    table = request_table(base, examples, "validation")
    rows = pd.read_parquet(examples.folder / "validation.parquet")["user_id"].to_numpy()
    expected = base.embed_users(batch_from(base, table)).vectors.squeeze(1)
    torch.testing.assert_close(users[torch.from_numpy(rows)], expected, atol=1e-4, rtol=1e-4)
    model = learn(small("knn_embed", base=folder, mode="single"), examples, tmp_path, group)
    found, wanted = answer(model, request_table(model, examples)), model.known
    assert wanted.sum() == len(events.users.unique()) and (found.ids > 0).all()


@pytest.mark.parametrize(
    "options",
    [{"mode": "single"}, {"mode": "mixture", "normalise": True}, {"clusters": 1, "interests": 3}],
)
def test_every_mode_serves(
    options: dict[str, Any],
    examples: Examples,
    planted_log: EventLog,
    group: Group,
    tmp_path: Path,
) -> None:
    """The bundle replays golden requests as it is written; a new user is answered as well."""
    model = learn(small("knn_embed", **options), examples, tmp_path, group)
    bundle(model, examples, planted_log, tmp_path)
    found = Recommender.open(tmp_path / "bundle").recommend(
        requests=pd.DataFrame({"user_id": [5, 6], "history": [["i07", "i14"], []]}), k=4
    )
    assert found["user"].tolist() == [5] * 4 + [6] * 4


def test_a_run_on_other_events_is_refused(
    examples: Examples, planted_log: EventLog, group: Group, tmp_path: Path
) -> None:
    base = learn(small("als"), examples, tmp_path, group)
    folder = bundle(base, examples, planted_log, tmp_path, protocol_fingerprint="0" * 16)
    with pytest.raises(ConfigError, match="another log or split"):
        vectors_of(folder, examples.interactions(), examples)


def test_a_run_that_knows_the_validation_is_refused(
    examples: Examples, planted_log: EventLog, group: Group, tmp_path: Path
) -> None:
    base = learn(small("als"), examples, tmp_path, group)
    folder = bundle(base, examples, planted_log, tmp_path, train_roles=[TRAIN, VALIDATION])
    with pytest.raises(ConfigError, match=r"trainer\.refit = true"):
        vectors_of(folder, examples.interactions(), examples)


@pytest.mark.parametrize(("name", "why"), [("ease", "has vectors"), ("multi_interest", "has one")])
def test_a_run_without_single_vectors_is_refused(
    name: str,
    why: str,
    examples: Examples,
    planted_log: EventLog,
    group: Group,
    tmp_path: Path,
) -> None:
    base = learn(small(name), examples, tmp_path / "run", group, training(epochs=1))
    folder = bundle(base, examples, planted_log, tmp_path)
    with pytest.raises(ConfigError, match=why):
        vectors_of(folder, examples.interactions(), examples)


def test_zero_weights_have_no_vectors() -> None:
    found = mixtures_of(matrix([], [1], [3, 5]), ITEMS, CLUSTERS, 4)
    assert isinstance(found, Mixtures) and found.vectors.shape == (3, 4, 2)
    assert (found.vectors[found.weights == 0] == 0).all()


@pytest.mark.parametrize("mode", ["single", "mixture", "smoothed"])
def test_items_that_the_base_does_not_know_come_last(examples: Examples, mode: str) -> None:
    """And they are in no one's mixture."""
    model = fresh(small("knn_embed", mode=mode), examples)
    seen, users, items = random_log(3)
    model.items = len(items)
    items[[4, 9]] = 0
    model.fit_vectors(seen, users, items)
    rows = torch.arange(1, 40)
    queries = model.encode({"user_id": torch.arange(1, 30), HISTORY: torch.zeros(29, 2).long()})
    found = search(*queries, model.embed_items(rows), 39)[1]
    assert {4, 9} == set(rows[found[:, -2:]].unique().tolist())
    without = sp.csr_array(seen.toarray() * (items.any(1).numpy()))
    other = fresh(small("knn_embed", mode=mode), examples)
    other.fit_vectors(without, users, items)
    torch.testing.assert_close(model.weights, other.weights)
