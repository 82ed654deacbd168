"""ItemKNN, EASE, GF-CF, BSPM, ALS and BPR against values by hand and other implementations."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.nearest_neighbours import BM25Recommender
from pydantic import ValidationError
from sklearn.metrics.pairwise import cosine_similarity
from threadpoolctl import threadpool_limits

from conformance import bundle_of, learn
from feature_store.columns import HISTORY
from feature_store.errors import ConfigError
from feature_store.event_log import EventLog
from planted import Shape
from recsys.data.examples import Examples, Interactions
from recsys.distributed import Group
from recsys.model import Cost
from recsys.options import Kind, ModelConfig
from recsys.retrievers import item_knn, retriever_class
from recsys.retrievers.als import ALSConfig
from recsys.retrievers.bpr import BPRConfig
from recsys.retrievers.bspm import BSPMConfig
from recsys.retrievers.ease import EASE, EASEConfig
from recsys.retrievers.fitted import FittedRetriever, binary_matrix
from recsys.retrievers.gf_cf import GFCFConfig
from recsys.retrievers.item_knn import BM25, ItemKNNConfig
from recsys.retrievers.personal_popularity import PersonalPopularityConfig
from recsys.retrievers.popularity import RecentPopularity, RecentPopularityConfig
from recsys.serving.index.options import ExactConfig, FaissConfig, IndexConfig

BASELINES = ("item_knn", "ease", "gf_cf", "bspm", "als", "bpr")
SMALL: dict[str, dict[str, Any]] = {
    "item_knn": {},
    "ease": {"l2": 1.0},
    "gf_cf": {"components": 4},
    "bspm": {"components": 4},
    "als": {"factors": 2},
    "bpr": {"factors": 8},
}


def fit(config: ModelConfig, seen: np.ndarray, seed: int = 0) -> Any:
    """Fitted to seen [U, N], whose users and items become the rows from 1 on."""
    users, items = (torch.from_numpy(part + 1) for part in np.nonzero(seen))
    examples: Any = SimpleNamespace(
        num_items=seen.shape[1] + 1,
        schema=SimpleNamespace(user="user_id", item="item_id"),
        vocabulary=lambda _: range(len(seen) + 1),
    )
    kind = retriever_class(config.name)
    assert issubclass(kind, FittedRetriever)
    retriever = kind(config, examples, seed)
    retriever.fit(Interactions(users, items, torch.zeros(len(users))), examples)
    return retriever


def test_personal_popularity_counts_what_the_user_had_and_fills_up_by_popularity() -> None:
    """Three users had the first item, two the third, one the second, nobody the fourth."""
    seen = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0]])
    retriever = fit(PersonalPopularityConfig(), seen)
    histories = torch.tensor([[2, 4, 2, 0], [0, 0, 0, 0]])
    found = retriever.encode({HISTORY: histories}).vectors[:, 0, 1:]
    popularity = torch.tensor([3.0, 1.0, 2.0, 0.0]) / 4
    counts = torch.tensor([[0.0, 2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(found, counts + popularity)
    assert found.argsort(descending=True).tolist() == [[1, 3, 0, 2], [0, 2, 1, 3]]


def score(retriever: Any, histories: list[list[int]]) -> np.ndarray:
    """Scores [B, N] of the item rows from 1 on, for histories of the same rows."""
    width = max(map(len, histories))
    padded = torch.tensor([one + [0] * (width - len(one)) for one in histories])
    vectors = retriever.encode({HISTORY: padded}).vectors.squeeze(1)
    items = retriever.item_matrix(torch.arange(1, retriever.items))
    return (vectors[:, items] if items.dim() == 1 else vectors @ items.T).numpy()


@pytest.fixture(scope="module")
def seen() -> np.ndarray:
    """Who had what: 60 users, 25 items, some of them often."""
    rng = np.random.default_rng(5)
    return (rng.random((60, 25)) < rng.uniform(0.05, 0.5, 25)).astype(np.float64)


def histories_of(seen: np.ndarray) -> list[list[int]]:
    return [(np.flatnonzero(row) + 1).tolist() for row in seen]


# -- all of them -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASELINES)
def test_planted_groups_are_found(name: str) -> None:
    """Two groups of users, each with items of its own: nobody is shown the other group's."""
    rng = np.random.default_rng(0)
    seen = np.kron(np.eye(2), np.ones((30, 20))) * (rng.random((60, 40)) < 0.5)
    retriever = fit(retriever_class(name).Config(**SMALL[name]), seen)
    if name == "bpr":
        vectors = retriever.encode({"user_id": torch.arange(1, 61)}).vectors.squeeze(1)
        scores = (vectors @ retriever.item_matrix(torch.arange(1, 41)).T).numpy()
    else:
        scores = score(retriever, histories_of(seen))
    scores[seen > 0] = -np.inf
    best = scores.argsort(axis=1)[:, -5:]
    assert ((best < 20) == (np.arange(60) < 30)[:, None]).all()


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_seed_makes_the_same_retriever(name: str, seen: np.ndarray) -> None:
    config = retriever_class(name).Config(**SMALL[name])
    one, other = (fit(config, seen, seed=3).state_dict() for _ in range(2))
    assert one.keys() == other.keys() and one
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["als", "bpr"])
def test_another_seed_makes_another_retriever(name: str, seen: np.ndarray) -> None:
    config = retriever_class(name).Config(**SMALL[name])
    one, other = (fit(config, seen, seed=seed).vectors for seed in (1, 2))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("name", BASELINES[:-1])
def test_how_often_and_in_what_order_does_not_matter(name: str, seen: np.ndarray) -> None:
    retriever = fit(retriever_class(name).Config(**SMALL[name]), seen)
    plain, mixed = score(retriever, [[3, 7, 9], [9, 3, 7, 3, 9, 9, 0]])
    np.testing.assert_allclose(plain, mixed, atol=1e-5)


def test_an_item_that_was_had_twice_counts_once() -> None:
    once = Interactions(torch.tensor([1, 1, 2]), torch.tensor([1, 2, 2]), torch.zeros(3))
    twice = Interactions(torch.tensor([1, 1, 2, 1]), torch.tensor([1, 2, 2, 1]), torch.zeros(4))
    one, other = (binary_matrix(events, 3).toarray() for events in (once, twice))
    assert one.tolist() == other.tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("name", BASELINES)
def test_every_proposed_value_is_allowed(name: str) -> None:
    kind: Any = retriever_class(name).Config
    for option, domain in kind.search_space.items():
        for value in domain.get("choices") or (domain["low"], domain["high"]):
            chosen = getattr(kind(**{option: value}), option)
            assert chosen == value or isinstance(chosen, Kind)


def test_a_bundle_of_scores_holds_no_square_matrix_and_refuses_faiss(
    planted: dict[Shape, Examples], planted_log: EventLog, group: Group, tmp_path: Path
) -> None:
    examples = planted["sequences"]
    retriever = learn(ItemKNNConfig(), examples, tmp_path, group)
    candidates = examples.candidates()

    def export(index: IndexConfig) -> Any:
        return bundle_of(retriever, examples, planted_log, tmp_path / index.kind, index)

    generator = export(ExactConfig()).generator
    assert generator.items.tolist() == candidates.tolist()
    assert generator.record.items == "rows"
    assert generator.record.width == examples.num_items
    with pytest.raises(ConfigError, match=r"export\.index\.kind = 'faiss' .* 'exact'") as caught:
        export(FaissConfig())
    assert "\n" not in str(caught.value) and not (tmp_path / "faiss").exists()


# -- ItemKNN -----------------------------------------------------------------------------------

# users of the items: 1 by three, 2 and 3 by two; both 1 and 2 by two, 3 with each by one
FEW = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0]])


def test_item_knn_by_hand() -> None:
    knn = fit(ItemKNNConfig(neighbours=2, shrinkage=0), FEW)
    cos12, cos13, cos23 = 2 / 6**0.5, 1 / 6**0.5, 1 / 2
    np.testing.assert_allclose(
        score(knn, [[1], [3], [1, 2, 3]]),
        [[0, cos12, cos13], [cos13, cos23, 0], [cos12 + cos13, cos12 + cos23, cos13 + cos23]],
        rtol=1e-6,
    )
    nearest = fit(ItemKNNConfig(neighbours=1, shrinkage=0), FEW)  # 1 of 2, 2 of 1, and 2 of 3
    np.testing.assert_allclose(
        score(nearest, [[1], [3], [2, 3]]),
        [[0, cos12, 0], [0, 0, 0], [cos12, 0, cos23]],
        rtol=1e-6,
    )


def test_item_knn_shrinks_what_few_users_say() -> None:
    knn = fit(ItemKNNConfig(shrinkage=2), FEW)
    np.testing.assert_allclose(
        score(knn, [[1]]), [[0, 2 / 6**0.5 * 2 / 4, 1 / 6**0.5 * 1 / 3]], rtol=1e-6
    )


def test_bm25_by_hand() -> None:
    """Lengths of the users are 2, 3, 1, 1, so that ln(3 / 4)^2 and the like weigh them."""
    k1, b = 2.0, 0.5
    knn = fit(ItemKNNConfig(similarity=BM25(k1=k1, b=b), shrinkage=0), FEW)
    user = [np.log(3 / (1 + m)) ** 2 for m in (2, 3, 1, 1)]
    item = [3 / (2 * (0.5 + 0.5 * n / (7 / 3)) + 1) for n in (3, 2, 2)]
    np.testing.assert_allclose(
        score(knn, [[1]]),
        [[0, item[0] * item[1] * (user[0] + user[1]), item[0] * item[2] * user[1]]],
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    "options",
    [
        {"similarity": "cosine", "k1": 2.0},
        {"similarity": {"name": "cosine", "k1": 2.0}},
        {"similarity": {"name": "bm25", "k2": 2.0}},
    ],
)
def test_options_that_the_similarity_lacks_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"k[12]"):
        ItemKNNConfig.model_validate(options)


def test_cosine_is_that_of_scikit_learn(seen: np.ndarray) -> None:
    similarity = cosine_similarity(seen.T)
    np.fill_diagonal(similarity, 0)
    found = score(fit(ItemKNNConfig(neighbours=25, shrinkage=0), seen), histories_of(seen))
    np.testing.assert_allclose(found, seen @ similarity, rtol=1e-5)
    for row in similarity:  # no two are equal here, or the cut could fall between them
        row[row < np.sort(row)[-5]] = 0
    found = score(
        fit(ItemKNNConfig(neighbours=5, shrinkage=0), seen), [[i] for i in range(1, 26)]
    ).T
    assert (np.count_nonzero(found, axis=1) == 5).all()
    np.testing.assert_allclose(np.sort(found)[:, -5:], np.sort(similarity)[:, -5:], rtol=1e-5)


def test_bm25_is_that_of_implicit(seen: np.ndarray) -> None:
    assert seen.any(0).all()
    model = BM25Recommender(K=25, K1=1.5, B=0.6, num_threads=1)
    model.fit(sp.csr_matrix(seen), show_progress=False)
    similarity = model.similarity.toarray()
    np.fill_diagonal(similarity, 0)
    config = ItemKNNConfig(neighbours=25, similarity=BM25(k1=1.5, b=0.6), shrinkage=0)
    np.testing.assert_allclose(
        score(fit(config, seen), histories_of(seen)), seen @ similarity, rtol=1e-5
    )


def test_equal_neighbours_are_kept_by_their_rows() -> None:
    knn = fit(ItemKNNConfig(neighbours=2, shrinkage=0), np.ones((3, 6)))
    neighbours = score(knn, [[item] for item in range(1, 7)]).T
    rows = [(np.flatnonzero(of) + 1).tolist() for of in neighbours]
    assert rows == [[2, 3], [1, 3], [1, 2], [1, 2], [1, 2], [1, 2]]


@pytest.mark.parametrize("similarity", ["cosine", "bm25"])
def test_blocks_do_not_show(
    similarity: Any, seen: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ItemKNNConfig(neighbours=4, similarity=similarity, shrinkage=3)
    whole = score(fit(config, seen), histories_of(seen))
    monkeypatch.setattr(item_knn, "_CELLS", 7 * 26)
    assert np.array_equal(score(fit(config, seen), histories_of(seen)), whole)


# -- EASE --------------------------------------------------------------------------------------


def test_ease_by_hand() -> None:
    """G + I = [[3, 1], [1, 2]], so P = [[2, -1], [-1, 3]] / 5; the third item was never had."""
    ease = fit(EASEConfig(l2=1), np.array([[1, 1, 0], [1, 0, 0]]))
    np.testing.assert_allclose(
        score(ease, [[1], [2], [1, 2], [3]]),
        [[0, 1 / 3, 0], [1 / 2, 0, 0], [1 / 2, 1 / 3, 0], [0, 0, 0]],
        rtol=1e-6,
    )


def test_ease_says_before_it_starts_what_it_will_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many items as the probe take eight times as long as the fastest of three, which took
    2, 1.5 and 3 seconds; and 12 bytes for each pair."""
    monkeypatch.setattr("recsys.retrievers.ease._SOON", 500)
    clock = iter([10.0, 12.0, 20.0, 21.5, 30.0, 33.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    examples: Any = SimpleNamespace(num_items=1_001, schema=SimpleNamespace(item="item_id"))

    def cost_of(items: int, **options: int) -> Cost | None:
        rows = torch.arange(1, items + 1)
        events = Interactions(torch.ones_like(rows), rows, torch.zeros_like(rows))
        return EASE(EASEConfig(**options), examples).fit_cost(events)

    cost = cost_of(1_000)
    assert cost is not None and cost.seconds == pytest.approx(1.5 * 8)
    assert cost.what == "whose matrix of 1,000 x 1,000 items takes 0.0 GB"
    assert cost_of(500) is None, "nobody waits for that"
    assert cost_of(1_000, max_items=999) is None, "that is refused"


def test_ease_is_the_formula(seen: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    inverse = np.linalg.inv(seen.T @ seen + 20 * np.eye(25))
    weights = np.eye(25) - inverse / np.diag(inverse)
    monkeypatch.setattr("recsys.retrievers.ease._BLOCK", 7)
    found = score(fit(EASEConfig(l2=20), seen), histories_of(seen))
    np.testing.assert_allclose(found, seen @ weights, atol=1e-6)


def test_a_catalogue_too_large_for_ease_is_refused(seen: np.ndarray) -> None:
    with pytest.raises(
        ConfigError, match=r"ease needs 0\.0 GB .* 25 items .* max_items = 24 "
    ) as e:
        fit(EASEConfig(max_items=24), seen)
    assert "\n" not in str(e.value)
    mostly_untrained = np.hstack([seen, np.zeros((60, 500))])
    assert score(fit(EASEConfig(max_items=25), mostly_untrained), [[1]]).shape == (1, 525)


# -- GF-CF -------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_gf_cf_is_the_formula(alpha: float, seen: np.ndarray) -> None:
    users, items = seen.sum(1, keepdims=True), seen.sum(0)
    normalised = seen / np.sqrt(np.maximum(users, 1)) / np.sqrt(items)
    _, _, vectors = np.linalg.svd(normalised)
    ideal = (vectors[:6].T @ vectors[:6]) * np.sqrt(items) / np.sqrt(items)[:, None]
    expected = seen @ (normalised.T @ normalised + alpha * ideal)
    found = score(fit(GFCFConfig(alpha=alpha, components=6), seen), histories_of(seen))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_gf_cf_lets_through_what_there_is() -> None:
    """Two users alike: the one direction there is, though 256 are asked for."""
    gf_cf = fit(GFCFConfig(alpha=1), np.array([[1, 1, 0], [1, 1, 0]]))
    # R~ is 1/2 everywhere, so that both filters send an item to half of each of the two
    np.testing.assert_allclose(score(gf_cf, [[1], [3]]), [[1, 1, 0], [0, 0, 0]], atol=1e-5)


# -- BSPM --------------------------------------------------------------------------------------


def euler(slope: Any, at: np.ndarray, step: float) -> np.ndarray:
    return at + step * slope(at)


def kutta(slope: Any, at: np.ndarray, step: float) -> np.ndarray:
    """Kutta's rule of 1901, as textbooks have it."""
    first = slope(at)
    second = slope(at + step / 2 * first)
    third = slope(at + step / 2 * second)
    fourth = slope(at + step * third)
    return at + step / 6 * (first + 2 * second + 2 * third + fourth)


@pytest.mark.parametrize("merge", ["early", "late"])
@pytest.mark.parametrize(
    ("solver", "rule", "time", "steps"),
    [("euler", euler, 1.2, 3), ("rk4", kutta, 2.5, 1), ("rk4", kutta, 2.5, 2)],
)
def test_bspm_is_the_solver_of_its_equations(
    merge: Any, solver: Any, rule: Any, time: float, steps: int, seen: np.ndarray
) -> None:
    items = np.sqrt(seen.sum(0))
    normalised = seen / np.sqrt(np.maximum(seen.sum(1, keepdims=True), 1)) / items
    blur, vectors = normalised.T @ normalised, np.linalg.svd(normalised)[2][:6]
    blurred = euler(lambda rows: rows @ blur - rows, seen, 1)
    ideal = 0.2 * (seen / items) @ vectors.T @ vectors * items
    scores = blurred + ideal if merge == "early" else blurred
    for _ in range(steps):
        scores = rule(lambda rows: -rows @ blur, scores, time / steps)
    expected = scores if merge == "early" else scores + ideal
    config = BSPMConfig(
        components=6, merge=merge, solver=solver, sharpening_time=time, sharpening_steps=steps
    )
    np.testing.assert_allclose(score(fit(config, seen), histories_of(seen)), expected, atol=1e-4)


def test_bspm_without_sharpening_is_gf_cf(seen: np.ndarray) -> None:
    bspm = fit(BSPMConfig(components=6, ideal_weight=0.3, sharpening_time=0), seen)
    gf_cf = fit(GFCFConfig(components=6, alpha=0.3), seen)
    one, other = (score(retriever, histories_of(seen)) for retriever in (bspm, gf_cf))
    np.testing.assert_allclose(one, other, atol=1e-5)


# -- ALS ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.5, 1.0, 10.0])
def test_a_user_is_folded_in_as_implicit_does(alpha: float, seen: np.ndarray) -> None:
    options: dict[str, Any] = {"factors": 8, "alpha": alpha, "iterations": 4}
    als = fit(ALSConfig(regularisation=0.5, **options), seen, seed=2)
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(regularization=0.5, random_state=2, **options)
        model.fit(sp.csr_matrix(np.pad(seen, ((1, 0), (1, 0)))), show_progress=False)
        np.testing.assert_allclose(als.vectors.numpy(), model.item_factors, atol=1e-6)
        known = [[1, 4, 20], [7], *histories_of(seen)]
        asked = sp.lil_matrix((len(known), 26), dtype=np.float32)
        for row, items in enumerate(known):
            asked[row, items] = 1
        users = model.recalculate_user(np.arange(len(known)), asked.tocsr())
    np.testing.assert_allclose(score(als, known), users @ model.item_factors[1:].T, atol=1e-4)


# -- BPR ---------------------------------------------------------------------------------------


def test_users_without_events_get_the_mean_and_items_the_lowest_bias(seen: np.ndarray) -> None:
    options: dict[str, Any] = {"factors": 4, "iterations": 20, "learning_rate": 0.05}
    padded = np.pad(seen, ((0, 1), (0, 1)))  # a user and an item without events
    bpr = fit(BPRConfig(regularisation=0.02, **options), padded, seed=2)
    model = BayesianPersonalizedRanking(
        regularization=0.02, num_threads=1, random_state=2, **options
    )
    # row 0 is there too, and the user without events is not
    model.fit(sp.csr_matrix(np.pad(padded[:-1], ((1, 0), (1, 0)))), show_progress=False)
    with torch.no_grad():
        users = bpr.encode({"user_id": torch.arange(62)}).vectors.squeeze(1).numpy()
    with_events = 1 + np.flatnonzero(seen.any(1))
    np.testing.assert_array_equal(users[with_events], model.user_factors[with_events])
    for nobody in (0, 61):
        np.testing.assert_allclose(users[nobody], users[with_events].mean(0), rtol=1e-5)
    items = bpr.item_matrix(torch.arange(1, 27)).numpy()
    np.testing.assert_array_equal(items[:25], model.item_factors[1:26])
    assert items[25].tolist() == [0, 0, 0, 0, items[:25, -1].min()]


def test_factors_that_grow_without_bounds_are_explained(seen: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"bpr with learning_rate = 1e\+20 .* lower it"):
        fit(BPRConfig(learning_rate=1e20, iterations=5), seen)


def test_recent_popularity_counts_the_last_days_alone() -> None:
    """Item 1 has more events, but ten days before the last and further back; one that is as old as
    allowed counts."""
    day = 86_400
    items, days = torch.tensor([1, 1, 1, 2, 2, 3]), torch.tensor([0, 5, 89.99, 90, 95, 100])
    examples: Any = SimpleNamespace(
        num_items=5, schema=SimpleNamespace(user="user_id", item="item_id", clock="time")
    )
    retriever = RecentPopularity(RecentPopularityConfig(days=10), examples)
    times = (days * day).long()
    retriever.fit(Interactions(torch.ones_like(items), items, times), examples)
    assert retriever.events.tolist() == [0, 0, 2, 1, 0]
    assert retriever.embed_items(torch.tensor([2, 1])).tolist() == [[2], [0]]
