"""Facts of items and slices of users, against what the planted log holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conformance import fresh, measure, small
from feature_store.errors import ConfigError, DataError
from planted import write_log, write_planted
from recsys.data.examples import Examples, Interactions
from recsys.distributed import Group
from recsys.evaluation.item_facts import ItemFacts
from recsys.evaluation.user_slices import user_slices
from recsys.retrievers.fitted import FittedRetriever


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    folder = tmp_path_factory.mktemp("planted")
    return write_planted(write_log(folder / "log"), folder / "examples", "sequences")


def facts(examples: Examples, category: str | None = None, *columns: str) -> ItemFacts:
    return ItemFacts.of(examples, category=category, columns=columns, power=0.5)


def test_popularity_is_split_into_thirds_of_the_events(examples: Examples) -> None:
    found = facts(examples)
    members = dict(zip(found.slices, found.members.T.bool(), strict=True))
    events = examples.known_events
    total = int(events.sum())
    parts = [members[f"popularity={name}"] for name in ("head", "middle", "tail")]
    assert (torch.stack(parts).sum(0)[1:] == 1).all()
    for part in parts[:2]:
        assert abs(int(events[part].sum()) - total / 3) <= int(events.max())
    assert events[parts[0]].min() >= events[parts[1]].max()
    assert torch.equal(members["items=cold"][1:], events[1:] < 5)
    assert not found.members[0].any()


def test_novelty_is_the_share_of_users_in_bits(examples: Examples) -> None:
    events = examples.interactions()
    users = len(set(events.users.tolist()))
    item = int(events.items[0])
    had = len(set(events.users[events.items == item].tolist()))
    assert float(facts(examples).information[item]) == pytest.approx(-np.log2(had / users))


def test_novelty_counts_users_however_often_they_had_an_item(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Item 1 is known to one user of four, who had it three times; item 2 to two."""
    users, items = torch.tensor([[1, 1], [1, 1], [1, 1], [2, 2], [3, 2], [4, 3]]).T
    events = Interactions(users, items, torch.arange(6))
    monkeypatch.setattr(examples, "interactions", lambda: events)
    assert facts(examples).information[1:5].tolist() == pytest.approx([2, 1, 2, 2])


def test_slices_by_a_column_hold_the_items_with_its_values(examples: Examples) -> None:
    found = facts(examples, None, "words", "genre")
    members = dict(zip(found.slices, found.members.T.bool(), strict=True))
    words = {f"words=w{n}" for n in range(6)}
    genres = {f"genre=g{n}" for n in range(4)}
    assert words | genres <= set(members)
    vocabulary = examples.vocabulary("item_id")
    ids = vocabulary.decode(np.flatnonzero(members["genre=g1"].numpy())).to_pylist()
    assert ids == [f"i{n:02d}" for n in range(42) if n % 4 == 1 and n % 11]


def test_categories_are_the_first_bag_or_what_was_asked_for(examples: Examples) -> None:
    by_words, by_genre = facts(examples), facts(examples, "genre")
    assert by_words.categories is not None and by_genre.categories is not None
    norms = by_words.categories.norm(dim=1)
    assert ((norms - 1).abs() < 1e-6).logical_or(norms == 0).all()
    same = by_genre.categories @ by_genre.categories.T
    assert set(same.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("category", "columns", "message"),
    [
        ("title", (), "evaluation.category: 'title'"),
        ("club", (), "evaluation.category: 'club'"),
        ("magic", (), "evaluation.category: 'magic'"),
        (None, ("list_price",), "slice_columns: 'list_price'"),
        (None, ("item_id",), "slice_columns: 'item_id'"),
    ],
)
def test_columns_that_make_no_categories_are_refused(
    examples: Examples, category: str | None, columns: tuple[str, ...], message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        facts(examples, category, *columns)


def test_users_are_sliced_by_activity_and_by_their_columns(
    examples: Examples, tmp_path: Path
) -> None:
    model = fresh(small("popularity"), examples)
    assert isinstance(model, FittedRetriever)
    model.fit(examples.interactions(), examples)
    result = measure(model, examples, Group(0, 1, torch.device("cpu")))
    labels = user_slices(result, examples, ("club",))
    assert set(labels["club"]) == {"chess", "rowing", "unknown"}
    history = result.users["history"]
    for label in set(labels["activity"]):
        inside = history[labels["activity"] == label]
        assert label == f"{inside.min()}-{inside.max()} events"
    assert len(set(labels["activity"])) == 4
    assert ((labels["users"] == "cold") == (history < 5)).all()
    with pytest.raises(ConfigError, match="slice_columns: 'favourites'"):
        user_slices(result, examples, ("favourites",))


def test_popularity_of_the_last_days_is_refused_where_there_are_no_days(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    for clock in ("order", "none"):
        monkeypatch.setattr(examples, "schema", examples.schema.model_copy(update={"clock": clock}))
        model = fresh(small("recent_popularity"), examples)
        assert isinstance(model, FittedRetriever)
        with pytest.raises(DataError, match="recent_popularity needs times"):
            model.fit(examples.interactions(), examples)
