"""What the page shows is what the bundle answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from feature_store.columns import HISTORY, time_of
from feature_store.errors import DataError
from recsys.explorer.asking import Who, request_of
from recsys.explorer.cards import Cards
from recsys.explorer.looking import Looking
from recsys.explorer.searching import items_by_words, users_by_beginning
from recsys.serving.catalogue import ItemCatalogue
from recsys.serving.explainer import Explainer
from recsys.serving.recommender import Recommender

USER = Who(user="1001")


def ids(cards: list[dict[str, Any]]) -> list[str]:
    return [card["item"] for card in cards]


def test_a_list_is_what_the_bundle_answers(looking: Looking, cascade: Recommender) -> None:
    page, answer = looking.lists(USER, 5), cascade.recommend(1001, k=5)
    assert ids(page["answer"]) == answer["item"].tolist()
    assert [card["score"] for card in page["answer"]] == answer["score"].tolist()
    assert [card["rank"] for card in page["answer"]] == [1, 2, 3, 4, 5]
    assert [card["title"] for card in page["answer"]] == answer["title"].tolist()
    assert page["interests"] == []


def test_stages_end_in_the_list(looking: Looking) -> None:
    stages = {stage["name"]: stage for stage in looking.lists(USER, 5)["stages"]}
    assert list(stages) == ["sasrec", "candidates", "fine"]
    assert [stage["found"] for stage in stages.values()] == [12, 12, 12]
    assert ids(stages["fine"]["items"]) == ids(looking.lists(USER, 5)["answer"])
    alone = [card["score"] for card in stages["sasrec"]["items"]]
    assert alone == sorted(alone, reverse=True)


def test_a_history_that_was_put_together_is_asked_with(
    looking: Looking, cascade: Recommender
) -> None:
    page = looking.lists(Who(history=["i01", "i08"]), 5)
    asked = cascade.recommend(requests=pd.DataFrame({HISTORY: [["i01", "i08"]]}), k=5)
    assert ids(page["answer"]) == asked["item"].tolist()
    somebody = looking.somebody(Who(history=["i01", "i08"]))
    assert ids(somebody["history"]) == ["i01", "i08"] and somebody["features"] == {}


def test_a_changed_history_keeps_the_users_features_and_times(looking: Looking) -> None:
    recommender, cards = looking.recommender, looking.cards
    newest = request_of(recommender, cards, USER)
    had = newest.column(HISTORY)[0].as_py()
    times = newest.column(time_of(HISTORY))[0].as_py()
    new = next(item for item in cards.ids.to_pylist() if item not in had)
    changed = request_of(recommender, cards, Who(user="1001", history=[*had[1:], new]))
    assert changed.column(HISTORY)[0].as_py() == [*had[1:], new]
    assert changed.column(time_of(HISTORY))[0].as_py() == [*times[1:], max(times)]
    assert set(changed.column_names) == set(newest.column_names)
    assert looking.somebody(USER)["features"]["user_id"] == "1001"


@pytest.mark.parametrize(
    ("who", "told"),
    [
        (Who(), "name a known user"),
        (Who(user="7"), "unknown users: 7"),
        (Who(user="nobody"), "users must be of type"),
        (Who(history=["i01", "none"]), "unknown item: none"),
    ],
)
def test_nobody_is_told_so(looking: Looking, who: Who, told: str) -> None:
    with pytest.raises(DataError, match=told):
        looking.lists(who, 5)


def test_why_an_item_is_shown_and_another_not(looking: Looking, cascade: Recommender) -> None:
    stages = {stage["name"]: ids(stage["items"]) for stage in looking.lists(USER, 12)["stages"]}
    first, last = stages["fine"][0], stages["fine"][-1]
    why = looking.why(USER, first, 3)
    rank = stages["sasrec"].index(first) + 1
    assert why["told"] == f"found by sasrec (rank {rank}), it is shown at rank 1"
    assert [each["stage"] for each in why["opinions"]] == ["sasrec", "candidates", "fine"]
    assert "is not among the first 3 of fine at rank 12" in looking.why(USER, last, 3)["told"]
    had = looking.somebody(USER)["history"][0]["item"]
    assert "in the history" in looking.why(USER, had, 3)["told"]
    everywhere = {*stages["sasrec"], *ids(looking.somebody(USER)["history"])}
    missed = next(item for item in cascade.finder.item_ids.to_pylist() if item not in everywhere)
    assert looking.why(USER, missed, 3)["told"] == "no generator found it within its budget"
    with pytest.raises(DataError, match="unknown item: none"):
        looking.why(USER, "none", 3)


def test_only_what_fits_an_expression_is_shown(looking: Looking, interests: Recommender) -> None:
    where = 'genre == "g1"'
    assert looking.about()["example"]
    for each in (looking, Looking(interests)):
        page = each.lists(USER, 4, where)
        every = [page["answer"], *(of["items"] for of in (*page["stages"], *page["interests"]))]
        assert all(card["facts"]["genre"] == "g1" for cards in every for card in cards)
        assert {card["origin"] for card in page["answer"]} <= {"sasrec", "generator"}
        other = each.lists(USER, 30, 'not genre == "g1"')["answer"][0]["item"]
        assert "does not fit" in each.why(USER, other, 4, where)["told"]
    with pytest.raises(DataError, match="gnere"):
        looking.lists(USER, 4, 'gnere == "g1"')


def test_concepts_sum_to_the_logit(looking: Looking, cascade: Recommender) -> None:
    item = looking.lists(USER, 1)["answer"][0]["item"]
    concepts = looking.why(USER, item, 3)["concepts"]
    explainer = Explainer(cascade.bundle, "fine")
    probability = explainer.score(explainer.pair(1001, item).to_pandas())["probability"][0]
    logit = np.log(probability / (1 - probability))
    assert sum(each["contribution"] for each in concepts) == pytest.approx(logit, abs=1e-5)


def test_the_most_alike_have_the_largest_cosines(looking: Looking, cascade: Recommender) -> None:
    generator = Recommender(cascade.bundle, "generator_sasrec").generator
    places = {item: place for place, item in enumerate(generator.item_ids.to_pylist())}
    vectors = generator.items.numpy() / np.linalg.norm(generator.items.numpy(), axis=1)[:, None]
    item = looking.lists(USER, 1)["answer"][0]["item"]
    had = sorted(set(ids(looking.somebody(USER)["history"])) & places.keys())
    cosines = {each: float(vectors[places[each]] @ vectors[places[item]]) for each in had}
    alike = looking.why(USER, item, 3)["alike"]
    assert ids(alike) == sorted(had, key=lambda each: -cosines[each])[:3]
    assert [each["cosine"] for each in alike] == pytest.approx(
        [cosines[each] for each in ids(alike)], abs=1e-6
    )


def test_interests_find_each_for_itself(interests: Recommender) -> None:
    looking = Looking(interests)
    page = looking.lists(USER, 5)
    assert len(page["interests"]) > 1 and page["stages"] == []
    assert sum(each["weight"] for each in page["interests"]) == pytest.approx(1)
    of_any = {item for each in page["interests"] for item in ids(each["items"])}
    assert set(ids(page["answer"])) <= of_any
    why = looking.why(USER, page["answer"][1]["item"], 5)
    assert why["told"] == "it is shown at rank 2" and why["opinions"][0]["kept"]
    ranked = looking.lists(USER, 30)["answer"]
    below = ranked[4]["score"] - ranked[20]["score"]
    told = looking.why(USER, ranked[20]["item"], 5)["told"]
    assert told == f"it has rank 21: its score is {below:.4g} below that of rank 5"


def test_words_add_up_to_the_score_that_the_list_says(text_bundle: Path) -> None:
    looking = Looking(Recommender.open(text_bundle))
    assert looking.about()["words"]
    who = Who(history=["i03", "i10", "i07"])
    (card, *_) = looking.lists(who, 3)["answer"]
    page = looking.words(who, card["item"])
    assert page["score"] == pytest.approx(card["score"], abs=1e-4)
    for side in (page["history"], page["item"]):
        added = [word["contribution"] for each in side["items"] for word in each["words"]]
        assert sum(added) + side["base"] == pytest.approx(card["score"], abs=1e-4)
    assert ids(page["history"]["items"]) == ["i07", "i10", "i03"]
    assert ids(page["item"]["items"]) == [card["item"]]


def test_who_reads_no_words_tells_of_none(looking: Looking, text_bundle: Path) -> None:
    assert not looking.about()["words"]
    with pytest.raises(DataError, match="none of its generators finds items by words"):
        looking.words(USER, "i12")
    with pytest.raises(DataError, match="unknown item: none"):
        Looking(Recommender.open(text_bundle)).words(Who(history=["i07"]), "none")
    with pytest.raises(DataError, match="no known item in its history"):
        Looking(Recommender.open(text_bundle)).words(Who(history=[]), "i12")


def test_items_are_found_by_words(looking: Looking) -> None:
    cards = items_by_words(looking.cards, "number ITEM 1", 50)
    titles = [card["title"] for card in cards]
    assert titles[0] == "Item number 1" and all("1" in title for title in titles)
    assert [len(title) for title in titles] == sorted(len(title) for title in titles)
    assert ids(items_by_words(looking.cards, "i07", 3))[0] == "i07"
    assert items_by_words(looking.cards, "number (", 3) == []
    assert len(items_by_words(looking.cards, "", 3)) == 3  # to begin with


def test_users_are_found_by_the_beginning_of_their_ids(cascade: Recommender) -> None:
    users = cascade.bundle.users
    assert users_by_beginning(users, "100", 4) == ["1001", "1002", "1003", "1004"]
    assert users_by_beginning(users, "7", 4) == []
    assert len(users_by_beginning(users, "", 4)) == 4


def test_a_column_of_addresses_is_the_picture(
    cascade: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Cards(cascade.bundle, "cascade").picture is None
    known = ItemCatalogue.column

    def column(self: ItemCatalogue, name: str) -> pa.Array:
        values = known(self, name)
        return values if name != "genre" else pa.array([None, *["https://a/b.jpg"] * len(values)])

    monkeypatch.setattr(ItemCatalogue, "column", column)
    cards = Cards(cascade.bundle, "cascade")
    first, second = cards.of(np.array([0, 1]))
    assert cards.picture == "genre" and "genre" not in cards.facts
    assert "picture" not in first and second["picture"] == "https://a/b.jpg"
