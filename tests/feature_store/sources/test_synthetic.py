"""The synthetic marketplace: what is planted is what the log shows."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest import ingest
from feature_store.sources.base import RawChunk
from feature_store.sources.synthetic import Synthetic
from feature_store.sources.synthetic_lexicon import (
    brand_names,
    categories_of,
    common_words,
    own_words,
)
from feature_store.sources.synthetic_truth import Truth
from feature_store.sources.synthetic_words import Words, _invent
from feature_store.sources.synthetic_world import WORDS, Items

SMALL = {"users": 60, "items": 100, "clusters": 5}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "store"
    ingest(Synthetic(seed=7), folder)
    return folder


@pytest.fixture(scope="module")
def truth(store: Path) -> Truth:
    return Truth.load(store)


@pytest.fixture(scope="module")
def events(store: Path) -> pd.DataFrame:
    """All events, each user's in order of time."""
    frame = pq.read_table(EventLog.open(store).files).to_pandas()
    return frame.sort_values(["user_id", "time", "position"], ignore_index=True)


@pytest.fixture(scope="module")
def shown(events: pd.DataFrame) -> pd.DataFrame:
    """The rows that stand for an item shown, with the clicks of the user before each."""
    rows = events[events.event_type != "return"].reset_index(drop=True)
    rows["before"] = rows.groupby("user_id").clicked.cumsum() - rows.clicked
    return rows


def arrays(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return rows.user_id.to_numpy(), rows.item_id.to_numpy(), rows.time.to_numpy()


def within(observed: np.ndarray, expected: np.ndarray, sigmas: float = 4.0) -> bool:
    """Whether 0/1 outcomes have the mean that their probabilities predict."""
    error = np.sqrt((expected * (1 - expected)).sum()) / len(expected)
    return abs(observed.mean() - expected.mean()) < sigmas * error


def test_sizes_are_about_what_was_asked_for(events: pd.DataFrame) -> None:
    assert events.user_id.nunique() == 2000
    clicks = events[events.clicked == 1].groupby("user_id").size()
    assert 0.8 * 40 < clicks.mean() < 1.2 * 40
    assert events.item_id.between(1, 1000).all()
    assert (events.time.max() - events.time.min()).days in (58, 59)


def test_events_are_consistent(events: pd.DataFrame, shown: pd.DataFrame) -> None:
    assert not shown.duplicated(["user_id", "time"]).any()
    assert not shown[shown.clicked == 1].duplicated(["user_id", "item_id"]).any()
    bought = events[events.event_type == "purchase"]
    assert (bought.quantity >= 1).all() and (bought.price > 0).all()
    returned = events[events.event_type == "return"]
    assert (returned.quantity <= -1).all() and returned.propensity.isna().all()
    pairs = returned.merge(bought, on=["user_id", "item_id"], suffixes=("", "_bought"))
    assert len(pairs) == len(returned)
    assert (pairs.time > pairs.time_bought).all() and (
        pairs.quantity == -pairs.quantity_bought
    ).all()
    assert within(
        np.repeat([1.0, 0.0], [len(returned), len(bought) - len(returned)]),
        np.full(len(bought), 0.05),
    )


def test_clicks_and_purchases_follow_the_planted_probabilities(
    shown: pd.DataFrame, truth: Truth
) -> None:
    affinity = truth.affinity(*arrays(shown))
    click = truth.click_probability(*arrays(shown))
    buckets = np.digitize(affinity, [1e-9, 0.2, 0.4, 0.6, 0.8])
    rates = []
    for bucket in range(6):
        rows = buckets == bucket
        assert within(shown.clicked.to_numpy()[rows], click[rows])
        rates.append(shown.clicked[rows].mean())
    assert np.all(np.diff(rates) > 0.03)  # affinity matters
    clicked = shown[shown.clicked == 1]
    buy = truth.buy_probability(*arrays(clicked))
    bought = (clicked.event_type == "purchase").to_numpy(dtype=float)
    dear = truth.items.log_price[clicked.item_id.to_numpy() - 1] > 0
    assert within(bought[dear], buy[dear]) and within(bought[~dear], buy[~dear])


def test_propensities_are_those_of_the_policy(shown: pd.DataFrame, truth: Truth) -> None:
    """The inverse weights of "uniform over what is not yet clicked" average 1 and estimate it."""
    weights = 1.0 / (truth.world.items - shown.before) / shown.propensity
    error = weights.std() / np.sqrt(len(weights))
    assert abs(weights.mean() - 1.0) < 4 * error < 0.1
    estimates = weights * shown.clicked
    sample = shown.sample(4000, random_state=0)
    random = np.random.default_rng(0)
    anything = random.integers(1, truth.world.items + 1, len(sample))
    users, _, times = arrays(sample)
    value = truth.click_probability(users, anything, times)
    spread = np.hypot(value.std() / np.sqrt(len(value)), estimates.std() / np.sqrt(len(estimates)))
    assert abs(estimates.mean() - value.mean()) < 4 * spread + 0.01


def test_the_policy_is_a_distribution(truth: Truth) -> None:
    every = np.arange(truth.world.items)
    for cluster, last in ((0, -1), (3, -1), (3, 17), (int(truth.items.cluster[17]), 17)):
        total = truth.items.probability(every, np.array([cluster]), np.array([last])).sum()
        assert total == pytest.approx(1.0)
    random = np.random.default_rng(0)
    cluster, last = np.full(200_000, 2), np.full(200_000, 17)
    counts = np.bincount(truth.items.sample(random, cluster, last), minlength=len(every))
    expected = truth.items.probability(every, cluster[:1], last[:1]) * 200_000
    assert np.all(np.abs(counts - expected) < 6 * np.sqrt(expected) + 1)


@pytest.mark.parametrize("tilt", [0.6, -0.6])
def test_the_dearer_of_two_is_drawn_as_often_as_its_probability_says(tilt: float) -> None:
    """Of ten prices the dearer of two draws is the n-th with 2 n - 1 in 100."""
    world = Synthetic(items=10, clusters=1, interests=1, exploration=1.0)
    prices = np.arange(10.0, 0.0, -1.0)
    zeros = np.zeros(10, dtype=np.int64)
    items = Items.arrange(world, zeros, np.arange(10), np.arange(10), prices)
    expected = items.probability(np.arange(10), zeros[:1], zeros[:1] - 1, tilt)
    dear = (2 * np.arange(10)[::-1] + 1) / 100  # item 0 is the dearest
    of_two = dear if tilt > 0 else dear[::-1]
    np.testing.assert_allclose(expected, 0.4 * 0.1 + 0.6 * of_two)
    many = np.zeros(50_000, dtype=np.int64)
    shown = items.sample(np.random.default_rng(0), many, many - 1, tilt)
    counts = np.bincount(shown, minlength=10)
    assert np.all(np.abs(counts - expected * 50_000) < 5 * np.sqrt(expected * 50_000))


def test_popularity_follows_zipf(tmp_path: Path) -> None:
    source = Synthetic(users=1500, zipf=1.0, stickiness=0.0, exploration=0.02, events=10)
    ingest(source, tmp_path / "store")
    truth = Truth.load(tmp_path / "store")
    events = pq.read_table(EventLog.open(tmp_path / "store").files).to_pandas()
    clicked = events.sort_values(["user_id", "time"]).groupby("user_id").clicked.cumsum()
    items = events.item_id[clicked == 0].to_numpy()  # later, what was clicked is left out
    counts = np.bincount(truth.items.rank[items - 1])[:20]  # within clusters, all together
    slope = np.polyfit(np.log(np.arange(1, 21)), np.log(counts), 1)[0]
    assert -1.15 < slope < -0.8


def test_what_follows_can_be_learned_and_popularity_does_not_know_it(
    shown: pd.DataFrame, truth: Truth
) -> None:
    clicks = shown[shown.clicked == 1]
    follows = clicks.user_id.to_numpy()[1:] == clicks.user_id.to_numpy()[:-1]
    items = clicks.item_id.to_numpy()
    after = (truth.successors(items[:-1]) == items[1:, None]).any(axis=1)[follows]
    popular = clicks.item_id.value_counts().index[: truth.world.successors]
    assert after.mean() > 0.5
    assert np.isin(items[1:], popular)[follows].mean() < 0.05


def test_interests_drift(shown: pd.DataFrame, truth: Truth) -> None:
    still = Truth(truth.world.model_copy(update={"drift": 0.0}), truth.items, truth.users)
    last_days = shown[shown.time > shown.time.max() - pd.Timedelta(days=10)]
    moved = truth.affinity(*arrays(last_days))
    begin = still.affinity(*arrays(last_days))
    assert np.abs(moved - begin).mean() > 0.05
    assert within(last_days.clicked.to_numpy(), truth.click_probability(*arrays(last_days)))


def test_country_and_age_tell_something_of_interests(truth: Truth) -> None:
    clusters = truth.world.clusters
    top = truth.users.interests[:, 0]
    overall = np.bincount(top, minlength=clusters) / len(top)
    in_one = np.bincount(top[truth.users.country == 0], minlength=clusters)
    expected = overall * in_one.sum()
    chi2 = ((in_one - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    assert chi2 > 2 * clusters  # far beyond chance, whose mean is clusters - 1


def test_texts_come_from_the_cluster(store: Path, truth: Truth) -> None:
    items = pq.read_table(store / "items.parquet").to_pandas()
    cluster = truth.items.cluster[items.item_id - 1]
    assert (items.groupby(cluster).category.nunique() == 1).all()
    words = items.assign(cluster=cluster).explode("keywords").groupby("keywords").cluster
    assert (words.nunique() == 1).all()
    assert all(
        keyword in title
        for title, keywords in zip(items.title, items.keywords, strict=True)
        for keyword in keywords[:2]
    )
    np.testing.assert_allclose(items.list_price, truth.items.price, rtol=1e-6)


class Sliced(Synthetic):
    """The same rows in other chunks."""

    def read_events(self) -> Iterator[RawChunk]:
        for chunk in super().read_events():
            for start in range(0, chunk.table.num_rows, 777):
                part = chunk.table.slice(start, 777)
                yield RawChunk(part, chunk.file, chunk.lines[start : start + 777])


def test_equal_seeds_make_equal_logs_whatever_the_chunks(tmp_path: Path) -> None:
    prints = [
        ingest(source, tmp_path / str(place)).log_fingerprint
        for place, source in enumerate(
            [Synthetic(**SMALL), Synthetic(**SMALL), Sliced(**SMALL), Synthetic(seed=1, **SMALL)]
        )
    ]
    assert prints[0] == prints[1] == prints[2] != prints[3]


def test_users_of_a_block_do_not_depend_on_how_many_blocks_follow() -> None:
    options = {"items": 100, "clusters": 5, "events": 3}
    few = next(Synthetic(users=2048, **options).read_events())
    many = Synthetic(users=5000, **options).read_events()
    assert next(many).table.equals(few.table)
    assert min(next(many).table["user_id"].to_pylist()) > 2048


def test_memory_does_not_grow_with_the_number_of_users() -> None:
    def peak(users: int) -> int:
        tracemalloc.start()
        for _ in Synthetic(users=users, items=200, clusters=5, events=4).read_events():
            pass
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    assert peak(12_288) < 1.5 * peak(4_096)


def test_hard_worlds_end(tmp_path: Path) -> None:
    """Users who would click far more than there is."""
    source = Synthetic(users=5, items=10, clusters=1, interests=1, events=200, days=1)
    ingest(source, tmp_path / "store")
    clicks = (
        pq.read_table(EventLog.open(tmp_path / "store").files).to_pandas().query("clicked == 1")
    )
    assert clicks.groupby("user_id").size().max() == 5  # half of the items


@pytest.mark.parametrize(
    "options", [{"interests": 30}, {"items": 20}, {"stickiness": 1.0}, {"seed": -1}, {"user": 1}]
)
def test_impossible_worlds_are_refused(options: dict) -> None:
    with pytest.raises(ValidationError):
        Synthetic(**options)


def test_truth_survives_the_way_to_disk_and_is_named_when_absent(
    store: Path, truth: Truth, tmp_path: Path
) -> None:
    source = Synthetic(seed=7)
    np.testing.assert_array_equal(truth.items.ring, source._items.ring)
    np.testing.assert_array_equal(truth.items.ranked, source._items.ranked)
    assert truth.users.begin.shape == (2000, 3)
    with pytest.raises(DataError, match="is this a store made from the synthetic source"):
        Truth.load(tmp_path)


def test_items_have_words_that_people_read() -> None:
    """Each of the four kinds from its own lexicon, and none twice, however many there are."""
    lexicon = (brand_names, common_words, own_words, categories_of)
    for words in lexicon:
        many = words(5_000)
        assert len(set(many)) == 5_000 and many[:3] == words(3)
        assert all(re.fullmatch(r"[A-Za-z]+([- ][a-z]+)?( [0-9]+)?", word) for word in many)
    drawn = Words.draw(Synthetic(**SMALL))
    assert set(drawn.brands.to_pylist()) == set(brand_names(10))
    assert set(drawn.categories.to_pylist()) == set(categories_of(5))
    (title, *_) = drawn.describe(np.array([2]), 0)["title"].to_pylist()
    brand, *_, category = title.split(" ")
    assert brand in brand_names(10) and category == drawn.categories[2].as_py()


def test_words_sort_as_the_sounds_that_stood_for_them() -> None:
    """So that no row of a vocabulary, and no figure, moves with the spelling."""
    world = Synthetic(**SMALL)
    sounds = _invent(world.random(WORDS), 40 + 5 * 13 + 10)
    common, own, brands, categories = np.split(sounds, [40, 40 + 60, 40 + 60 + 10])
    drawn = Words.draw(world)
    for words, before in (
        (drawn.common, common),
        (drawn.own, own),
        (drawn.brands, brands),
        (drawn.categories, categories),
    ):
        assert np.argsort(words.to_pylist()).tolist() == np.argsort(before).tolist()


def test_lists_are_sessions_and_first_places_are_looked_at_more() -> None:
    plain = pd.concat(c.table.to_pandas() for c in Synthetic(**SMALL).read_events())
    told = pd.concat(c.table.to_pandas() for c in Synthetic(**SMALL, lists=True).read_events())
    assert told[plain.columns].equals(plain)  # the events are those of a log without lists
    shown = told[told.event_type != "return"]
    assert told[told.event_type == "return"][["list_id", "place"]].isna().all(axis=None)
    shown = shown.sort_values(["user_id", "time", "place"], kind="stable")
    lists = shown.groupby("list_id")
    assert (lists.user_id.nunique() == 1).all()
    assert (lists.cumcount() + 1 == shown.place).all()
    biased = Synthetic(**SMALL, lists=True, position_bias=1.0).read_events()
    clicks = pd.concat(c.table.to_pandas() for c in biased).groupby("place").clicked.mean()
    unbiased = shown.groupby("place").clicked.mean()
    for place in (2, 3, 4):  # a place is looked at with a probability of one over it
        assert clicks[place] / unbiased[place] == pytest.approx(1 / place, rel=0.35)


def test_first_places_are_dear_where_that_is_asked_for() -> None:
    """At place 1 the dearer of two, at place 2 any, further down more and more the cheaper."""
    some = {
        "users": 60,
        "items": 1000,
        "clusters": 5,
        "events": 10.0,
    }  # so many that clicked ones are not missed
    world = Synthetic(**some, lists=True, exploration=1.0, dear_first=1.0)
    rows = pd.concat(c.table.to_pandas() for c in world.read_events()).dropna(subset="place")
    ranks = (world._items.price_rank[rows.item_id - 1] + 0.5) / 1000
    means = pd.Series(ranks).groupby(rows.place.to_numpy()).mean()
    for place, expected in ((1, 2 / 3), (2, 1 / 2), (4, 1 / 2 - 1 / 12), (8, 1 / 2 - 1 / 8)):
        assert means[place] == pytest.approx(expected, abs=0.05)


def test_options_that_came_later_leave_earlier_logs_what_they_were() -> None:
    """Prepared data and figures are known by this digest, which was taken before lists came."""
    world = Synthetic(users=50, items=200, days=20)
    assert world.fingerprint() == "081828df66cc48d2"
    later = {"lists": True, "position_bias": 1.0, "dear_first": 1.0}
    others = [Synthetic(**SMALL, **{name: value}) for name, value in later.items()]
    assert len({other.fingerprint() for other in (world, *others)}) == 4
