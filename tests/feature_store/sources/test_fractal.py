"""MovieLens grown by itself, from ratings written down by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest import ingest
from feature_store.sources.fractal import Fractal, densities, scaled

# users 1 and 4, items 10 and 20: 1 has both, 4 has one
RATINGS = b"1::10::5::978300760\n1::20::3::978300761\n4::10::4::978300762\n"
MOVIES = b"10::Old (1950)::Drama\n20::New (2000)::Comedy\n25::Unrated (2001)::\n"
USERS = b"1::F::1::10::48067\n4::M::25::2::11111\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    for name, rows in (("ratings", RATINGS), ("movies", MOVIES), ("users", USERS)):
        (folder / f"{name}.dat").write_bytes(rows)
    return folder


def grown(source: Fractal) -> pa.Table:
    return pa.concat_tables(chunk.table for chunk in source.read_events())


def test_all_copies_are_the_product_with_ones(folder: Path, tmp_path: Path) -> None:
    source = Fractal(path=folder, events=18, user_copies=2, item_copies=3)
    assert np.allclose(source.probabilities, 1)
    report = ingest(source, tmp_path / "store")
    assert (report.events.stored, report.distinct_users, report.distinct_items) == (18, 4, 6)
    assert report.events_without_item == report.events_without_user == 0
    events = EventLog.open(tmp_path / "store")
    table = grown(source)
    pairs = set(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    copies = {
        (u + 4 * a, i + 25 * b)
        for u, i in ((1, 10), (1, 20), (4, 10))
        for a in range(2)
        for b in range(3)
    }
    assert pairs == copies
    catalogue = Catalogue(events.folder, events.schema)
    items = {row["item_id"]: row for row in catalogue.read("item").to_pylist()}
    assert items[10]["title"] == "Old (1950)" and items[60]["title"] == "Old (1950) #3"
    assert items[60]["genres"] == ["Drama"] and items[60]["year"] == 1950
    users = {row["user_id"]: row["gender"] for row in catalogue.read("user").to_pylist()}
    assert users == {1: "F", 4: "M", 5: "F", 8: "M"}


def test_a_seed_tells_which_ratings_each_copy_has(tmp_path: Path) -> None:
    rows = (f"{user}::{item}::3::1\n" for user in range(1, 9) for item in range(user))
    (tmp_path / "ratings.dat").write_text("".join(rows))
    (tmp_path / "movies.dat").write_bytes(MOVIES)
    one, again, other = (
        Fractal(path=tmp_path, events=70, user_copies=2, item_copies=2, seed=seed)
        for seed in (1, 1, 2)
    )
    assert grown(one).equals(grown(again)) and not grown(one).equals(grown(other))
    assert one.fingerprint() == again.fingerprint() != other.fingerprint()
    assert 50 < grown(one).num_rows < 90


def test_more_than_all_copies_hold_is_refused(folder: Path) -> None:
    source = Fractal(path=folder, events=13, user_copies=2, item_copies=2)
    with pytest.raises(DataError, match=r"2 x 2 copies of 3 ratings are fewer than 13: raise data"):
        next(source.read_events())


def test_a_rating_that_is_none_is_named(folder: Path, tmp_path: Path) -> None:
    for name, rows in (("ratings", RATINGS + b"4::x::1::1\n"), ("movies", MOVIES)):
        (tmp_path / f"{name}.dat").write_bytes(rows)
    with pytest.raises(DataError, match=r"ratings\.dat:4, column 'item_id': 'x' is"):
        next(Fractal(path=tmp_path, events=1).read_events())


def test_densities_are_of_groups_by_activity_and_popularity() -> None:
    """User 7 has all four items, the others one or two of them; item 3 has all four users."""
    users = np.array([7, 7, 7, 7, 5, 5, 1, 2])
    items = np.array([3, 4, 8, 9, 3, 4, 3, 3])
    assert densities(users, items, 2, 2).tolist() == [[4 / 4, 2 / 4], [2 / 4, 0.0]]


def test_probabilities_sum_to_what_is_asked_for_and_stay_below_one() -> None:
    shape = np.array([[1.0, 0.5], [0.25, 0.25]])
    assert scaled(shape, 1.0) == pytest.approx(shape / 2)
    assert scaled(shape, 2.5) == pytest.approx(np.array([[1, 0.75], [0.375, 0.375]]))
    assert scaled(shape, 4.0) == pytest.approx(np.ones((2, 2)))
