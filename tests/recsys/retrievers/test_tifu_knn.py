"""TIFU-kNN against hand-computed values, and against the formula written as loops."""

from __future__ import annotations

from itertools import groupby
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from feature_store.columns import HISTORY, HISTORY_TIME
from feature_store.errors import DataError
from recsys.data.examples import Interactions
from recsys.retrievers import tifu_knn
from recsys.retrievers.tifu_knn import TIFUKNN, TIFUKNNConfig

A, B, C = 1, 2, 3
Events = dict[int, list[tuple[int, int]]]
# by user: (time, item); the first has three baskets, of which the oldest holds an item twice
FEW: Events = {1: [(10, A), (10, B), (10, A), (20, A), (30, C)], 2: [(5, A), (5, B)], 3: [(7, C)]}
BY_HAND: dict[str, Any] = {"group_size": 2, "basket_decay": 0.5, "group_decay": 0.5}
# the newest group has two baskets and the older one: 1/2 (1/2 (C + 1/2 A) + 1/2 (A + B))
FIRST, SECOND, THIRD = [0.375, 0.25, 0.25], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]


def examples_of(users: int, items: int, clock: str = "time") -> Any:
    return SimpleNamespace(
        num_items=items + 1,
        schema=SimpleNamespace(user="user_id", item="item_id", clock=clock),
        vocabulary=lambda _: range(users + 1),
    )


def fit(events: Events, items: int = 3, users: int = 4, **options: Any) -> TIFUKNN:
    """The last user has no events."""
    rows = sorted((time, user, item) for user, had in events.items() for time, item in had)
    times, users_of, items_of = (torch.tensor(part) for part in zip(*rows, strict=True))
    examples = examples_of(users, items)
    retriever = TIFUKNN(TIFUKNNConfig(**options), examples)
    retriever.fit(Interactions(users_of, items_of, times), examples)
    return retriever


def ask(retriever: TIFUKNN, histories: list[list[tuple[int, int]]], users: list[int]) -> np.ndarray:
    """Scores [B, N] of the item rows from 1 on."""
    times, items = (
        pad_sequence([torch.tensor([one[part] for one in had]) for had in histories], True).long()
        for part in (0, 1)
    )
    inputs = {HISTORY: items, HISTORY_TIME: times, "user_id": torch.tensor(users)}
    return retriever.encode(inputs).vectors[:, 0, 1:].numpy()


def mixed(own: list[float], mean: list[float]) -> list[float]:
    return (0.75 * np.array(own) + 0.25 * np.array(mean)).tolist()


def test_by_hand() -> None:
    """Squared distances: .77 from the first to the third, 1.02 to the second; 3 between those."""
    retriever = fit(FEW, **BY_HAND, neighbours=1, mixing_weight=0.75)
    weighed = ask(fit(FEW, **BY_HAND, mixing_weight=1.0), [*FEW.values()], [1, 2, 3])
    assert weighed.tolist() == [FIRST, SECOND, THIRD]
    scores = ask(retriever, [*FEW.values(), FEW[1], FEW[1]], [1, 2, 3, 0, 4])
    assert scores.tolist() == [
        mixed(FIRST, THIRD),
        mixed(SECOND, FIRST),
        mixed(THIRD, FIRST),
        FIRST,  # who is not known, or new, has the first user for a neighbour
        FIRST,
    ]


def test_no_more_neighbours_than_there_are_others() -> None:
    """Nobody is their own, and nobody is who had nothing."""
    retriever = fit(FEW, **BY_HAND, neighbours=300, mixing_weight=0.75)
    scores = ask(retriever, [FEW[1], FEW[1]], [1, 4])
    others = [np.mean([SECOND, THIRD], axis=0), np.mean([FIRST, SECOND, THIRD], axis=0)]
    np.testing.assert_allclose(scores, [mixed(FIRST, list(mean)) for mean in others], rtol=1e-6)


def test_a_basket_is_a_moment_or_a_day() -> None:
    """Two moments of one day, and one shortly after midnight."""
    day = 86_400
    had = [(3 * day, A), (4 * day - 1, B), (4 * day, C)]
    options = {**BY_HAND, "group_size": 3, "mixing_weight": 1.0}
    moments, days = (
        ask(fit(FEW, basket=basket, **options), [had], [0])[0].tolist()
        for basket in ("moment", "day")
    )
    np.testing.assert_allclose(moments, np.array([0.25, 0.5, 1]) / 3, rtol=1e-6)
    assert days == [0.25, 0.25, 0.5]


def weighed(had: list[tuple[int, int]], items: int, m: int, basket: float, group: float) -> Any:
    """The formula, basket by basket from the newest."""
    baskets = [{item for _, item in events} for _, events in groupby(had, lambda event: event[0])]
    newest = baskets[::-1]
    groups = [newest[start : start + m] for start in range(0, len(newest), m)]
    x = np.zeros(items)
    for g, members in enumerate(groups):
        for w, held in enumerate(members):
            for item in held:
                x[item - 1] += group**g / len(groups) * basket**w / len(members)
    return x


@pytest.mark.parametrize("events_at_once", [tifu_knn._EVENTS, 50])
def test_it_is_the_formula(events_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tifu_knn, "_EVENTS", events_at_once)
    rng, items, users = np.random.default_rng(3), 12, 15
    events: Events = {
        user: sorted(
            (int(time), int(item))
            for time, item in rng.integers((1, 1), (12, items + 1), (rng.integers(1, 40), 2))
        )
        for user in range(1, users + 1)
    }
    options: dict[str, Any] = {"group_size": 3, "basket_decay": 0.8, "group_decay": 0.6}
    retriever = fit(events, items, users, **options, neighbours=4, mixing_weight=0.3)
    x = np.array([weighed(had, items, 3, 0.8, 0.6) for had in events.values()])
    expected = []
    for user, own in enumerate(x):
        distances = ((x - own) ** 2).sum(1)
        distances[user] = np.inf
        expected.append(0.3 * own + 0.7 * x[distances.argsort()[:4]].mean(0))
    scores = ask(retriever, [*events.values()], [*events])
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_logs_without_times_are_refused() -> None:
    with pytest.raises(DataError, match=r"tifu_knn needs times, which make baskets; .* none"):
        TIFUKNN(TIFUKNNConfig(), examples_of(3, 3, clock="order"))
