"""Greedy diversification against a plain loop, and as a bundle serves it."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance import bundle_of, learn, shape_of, small
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from planted import Shape, raw_requests
from recsys.data.examples import Examples
from recsys.distributed import join
from recsys.lists import diversify as module
from recsys.lists.diversify import diversify
from recsys.serving.recommender import Recommender


def by_hand(
    scores: list[float], places: list[int], sets: list[set[int]], weight: float, k: int
) -> list[int]:
    """Each place to the candidate that adds most to the score and to the pairs that differ."""
    left = [m for m, place in enumerate(places) if place >= 0]
    chosen: list[int] = []
    while left and len(chosen) < k:
        gains = {
            m: scores[m] + weight * sum(not sets[places[m]] & sets[places[c]] for c in chosen)
            for m in left
        }
        pick = max(left, key=lambda m: (gains[m], -m))
        chosen.append(pick)
        left.remove(pick)
    return [places[m] for m in chosen]


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 9),
    weight=st.sampled_from([0.0, 0.25, 0.5, 4.0]),
    multi_hot=st.booleans(),
    cells=st.sampled_from([1, 1 << 20]),
)
def test_it_is_the_greedy_loop(
    seed: int, k: int, weight: float, multi_hot: bool, cells: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    users, candidates, items = 3, 7, 12
    scores = torch.randint(-8, 9, (users, candidates), generator=generator) / 8
    scores = scores.sort(dim=1, descending=True).values
    places = torch.stack([torch.randperm(items, generator=generator) for _ in range(users)])
    places = places[:, :candidates]
    places[0, 5:], scores[0, 5:] = -1, float("-inf")
    if multi_hot:
        categories = torch.rand(items, 4, generator=generator) < 0.3
        sets = [set(row.nonzero().flatten().tolist()) for row in categories]
    else:
        categories = torch.randint(0, 4, (items,), generator=generator)
        sets = [{int(one)} - {0} for one in categories]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CELLS", cells)
        values, found = diversify(scores, places, categories, weight, k)
    assert found.shape == values.shape == (users, min(k, candidates))
    for user in range(users):
        expected = by_hand(scores[user].tolist(), places[user].tolist(), sets, weight, k)
        short = found.shape[1] - len(expected)
        assert found[user].tolist() == expected + [-1] * short
        of = dict(zip(places[user].tolist(), scores[user].tolist(), strict=True))
        assert values[user].tolist() == [of[p] for p in expected] + [float("-inf")] * short
    if weight == 0:
        assert torch.equal(found, places[:, :k])


@pytest.fixture(scope="module")
def served(
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Recommender, Examples]:
    name = "item_knn"
    examples, folder = planted[shape_of(name)], tmp_path_factory.mktemp("diverse")
    with join("cpu") as group:
        retriever = learn(small(name), examples, folder, group)
    bundle = bundle_of(retriever, examples, planted_log, folder / "bundle")
    return bundle, examples


def categories_of(recommender: Recommender, column: str) -> torch.Tensor:
    """Of all items, by their places."""
    every = torch.arange(len(recommender.generator.item_ids))
    return recommender.catalogue.categories(column, every)


def test_a_bundle_reads_categories_from_its_catalogue(served: tuple[Recommender, Examples]) -> None:
    recommender = served[0]
    items = [int(item[1:]) for item in recommender.generator.item_ids.to_pylist()]
    genres, words = (categories_of(recommender, name) for name in ("genre", "words"))
    assert [one == 0 for one in genres.tolist()] == [item % 11 == 0 for item in items]
    for i, one in enumerate(items):
        for j, other in enumerate(items):
            if genres[i] and genres[j]:
                assert (genres[i] == genres[j]) == (one % 4 == other % 4)
            sets = [
                {f"w{n % 6}", f"w{n % 5}"} if n % 3 == 2 else {f"w{n % 6}"} for n in (one, other)
            ]
            shared = sets[0] & sets[1] if one % 3 and other % 3 else set()
            assert bool((words[i] & words[j]).any()) == bool(shared)


@pytest.mark.parametrize("category", ["genre", "words"])
def test_more_diversity_means_fewer_alike(
    served: tuple[Recommender, Examples], category: str
) -> None:
    recommender, examples = served
    requests = raw_requests(examples).head(20)
    plain = recommender.recommend(requests=requests, k=5)
    same = recommender.recommend(requests=requests, k=5, diversity=0.0, category=category)
    pd.testing.assert_frame_equal(plain, same)
    diverse = recommender.recommend(requests=requests, k=5, diversity=1e6, category=category)
    assert len(diverse) == len(plain)
    assert not diverse.duplicated(["user", "item"]).any()
    categories = categories_of(recommender, category)
    place = {item: i for i, item in enumerate(recommender.generator.item_ids.to_pylist())}

    def alike(frame: pd.DataFrame) -> int:
        total = 0
        for _, items in frame.groupby("user")["item"]:
            rows = [categories[place[item]] for item in items]
            for i in range(len(rows)):
                for j in range(i):
                    both = rows[i] & rows[j] if category == "words" else (rows[i] == rows[j])
                    total += bool(both.any() and rows[i].any())
        return total

    assert alike(diverse) < 0.5 * alike(plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"diversity": 0.5, "category": "colour"}, r"'colour'; the catalogue has: genre, words"),
        ({"diversity": 0.5, "category": "list_price"}, "no column of categories"),
        ({"diversity": 0.5}, "diversity needs a category"),
        ({"diversity": -1, "category": "genre"}, "at least 0"),
        ({"diversity": float("nan"), "category": "genre"}, "at least 0"),
    ],
)
def test_what_cannot_be_diversified_is_said(
    served: tuple[Recommender, Examples], options: dict[str, object], message: str
) -> None:
    requests = raw_requests(served[1]).head(2)
    with pytest.raises(DataError, match=message):
        served[0].recommend(requests=requests, **options)  # type: ignore[arg-type]
