"""Exploration: every probability against the enumeration of all lists, and against frequencies."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np
import pytest
from pydantic import ValidationError

from feature_store.errors import DataError
from recsys.policy.exploration import Exploration, Explored, explored
from recsys.policy.plackett_luce import at_place

SCORES = np.array([2.0, 1.5, 1.4, 0.3, -1.0])
PLACES = np.array([30, 10, 50, 20, 40])  # of the candidates in the catalogue
K, MANY = 3, 20_000
WAYS = (
    Exploration(temperature=0.7),
    Exploration(temperature=0.7, keep=1),
    Exploration(share=0.3),
    Exploration(share=0.3, keep=1),
    Exploration(share=0.4, temperature=0.5),
    Exploration(temperature=1e-3, keep=2),
)


@cache
def show(how: Exploration | None, count: int = MANY, k: int = K) -> Explored:
    lists = (count, len(PLACES))
    seeds = np.arange(count)
    return explored(np.broadcast_to(PLACES, lists), np.broadcast_to(SCORES, lists), k, how, seeds)


def every_list(how: Exploration) -> dict[tuple[int, ...], float]:
    """The probability of each list of K, from the definition."""
    weights = np.ones(5) if how.temperature is None else np.exp((SCORES - 2) / how.temperature)
    lists = {}
    for order in permutations(range(5), K):
        drawn = 1.0
        for place, item in enumerate(order):
            if place < how.keep:
                drawn *= item == place
            else:
                left = [i for i in range(how.keep, 5) if i not in order[how.keep : place]]
                drawn *= weights[item] / weights[left].sum() if item in left else 0.0
        greedy = order == (0, 1, 2)
        lists[tuple(PLACES[list(order)])] = how.share * drawn + (1 - how.share) * greedy
    return lists


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_probabilities_are_those_of_all_lists(how: Exploration) -> None:
    chances = every_list(how)
    assert sum(chances.values()) == pytest.approx(1)
    shown, chance = show(how)
    _, first = np.unique(shown, axis=0, return_index=True)
    for row in first:
        items = tuple(shown[row])
        assert chance.of_list[row] == pytest.approx(chances[items], rel=1e-9)
        for place in range(K):
            begun = sum(p for each, p in chances.items() if each[:place] == items[:place])
            on = sum(p for each, p in chances.items() if each[: place + 1] == items[: place + 1])
            there = sum(p for each, p in chances.items() if each[place] == items[place])
            assert chance.given[row, place] == pytest.approx(on / begun, rel=1e-9)
            assert chance.at_place[row, place] == pytest.approx(there, rel=1e-8)


@pytest.mark.parametrize("how", WAYS, ids=str)
def test_lists_come_as_often_as_they_say(how: Exploration) -> None:
    """Within 4.5 standard errors each."""
    lists, counts = np.unique(show(how).places, axis=0, return_counts=True)
    chances = every_list(how)
    expected = np.array([chances[tuple(items)] for items in lists])
    assert expected.sum() > 0.99  # what may come has come
    errors = np.sqrt(np.maximum(expected * (1 - expected), 1e-12) / MANY)
    assert (np.abs(counts / MANY - expected) < 4.5 * errors + 1e-9).all()


def test_without_exploring_the_best_are_sure() -> None:
    for how in (None, Exploration(share=0.0)):
        shown, chance = show(how, count=2)
        assert shown.tolist() == [[30, 10, 50]] * 2
        assert (chance.given == 1).all() and (chance.at_place == 1).all()


def test_a_request_has_its_list_whatever_is_asked_beside_it() -> None:
    how = Exploration(temperature=1.0)
    whole = show(how, count=50)
    places, scores = np.stack([PLACES] * 2), np.stack([SCORES] * 2)
    part = explored(places, scores, K, how, np.array([31, 7]))
    assert part.places.tolist() == whole.places[[31, 7]].tolist()
    assert len(np.unique(whole.places, axis=0)) > 10


def test_short_lists_end_and_are_sure_where_they_do() -> None:
    """Of two candidates both are shown, and then nothing."""
    places, scores = np.array([[5, 6, -1, -1]]), np.array([[1.0, 1.0, -np.inf, -np.inf]])
    how = Exploration(temperature=1.0)
    shown, chance = explored(places, scores, 3, how, np.zeros(1, int))
    assert sorted(shown[0, :2]) == [5, 6] and shown[0, 2] == -1
    assert chance.given[0] == pytest.approx([0.5, 1, 1])
    assert chance.at_place[0] == pytest.approx([0.5, 0.5, 1])
    none = explored(-np.ones((1, 4), int), np.full((1, 4), -np.inf), 3, how, np.zeros(1, int))
    assert (none.places == -1).all() and (none.propensities.given == 1).all()


def test_only_the_pool_takes_part() -> None:
    how = Exploration(pool=3)
    assert set(np.unique(show(how, count=200, k=2).places)) == {30, 10, 50}


def test_far_apart_scores_keep_exact_probabilities() -> None:
    """Weights of 1, e^-400 and e^-800: the order is as good as sure, and nothing overflows."""
    scores = np.array([[0.0, -400.0, -800.0]])
    shown, chance = explored(
        np.arange(3)[None], scores, 3, Exploration(temperature=1.0), np.zeros(1, int)
    )
    assert shown.tolist() == [[0, 1, 2]]
    assert chance.given == pytest.approx(np.ones((1, 3)))
    assert chance.at_place == pytest.approx(np.ones((1, 3)))


def test_probabilities_at_a_place_sum_to_one_in_a_large_pool() -> None:
    """Over all items that may stand there; of 40 no enumeration is possible."""
    logits = np.linspace(0, 9, 40)
    drawn = np.stack([np.arange(40)] * 7, axis=1)  # an item at each of seven places
    sums = at_place(np.broadcast_to(logits, (40, 40)), drawn).sum(axis=0)
    assert sums == pytest.approx(np.ones(7), abs=1e-8)


@pytest.mark.parametrize(
    ("scores", "k", "message"),
    [
        (np.zeros((1, 4)), 2, r"must be \[B, M\]"),
        (np.zeros((1, 5)), 0, "k must be at least 1"),
        (np.zeros((1, 5)), 51, "raise pool"),
        (np.full((1, 5), np.nan), 2, "finite"),
    ],
)
def test_what_cannot_be_explored_is_refused(scores: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        explored(PLACES[None], scores, k, Exploration(), np.zeros(1, int))


def test_options_that_leave_nothing_to_draw_are_refused() -> None:
    with pytest.raises(ValidationError, match="leaves nothing"):
        Exploration(keep=5, pool=5)
