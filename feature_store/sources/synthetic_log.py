"""The simulation of the synthetic marketplace: a block of users, step by step, all at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_store.sources.synthetic_world import DAY_S, EVENTS, Items, Users, World

IMPRESSION, CLICK, PURCHASE, RETURN = range(4)
EVENT_TYPES = ("impression", "click", "purchase", "return")
_GAP_S = 7_200  # between the beginnings of a user's sessions, where the days allow it
_SESSION_MAX = 60  # impressions: at most 95 seconds each, so that a session ends within the gap


@dataclass(frozen=True)
class Rows:
    """Events of a block of users, in order of time; arrays [n].

    `second` counts from the log's beginning; `quantity` is 0, `propensity` nan and `place` 0 where
    an event has none; `session` counts the user's, from 0.
    """

    user: np.ndarray
    item: np.ndarray
    second: np.ndarray
    kind: np.ndarray
    quantity: np.ndarray
    propensity: np.ndarray
    session: np.ndarray
    place: np.ndarray


def simulate(world: World, items: Items, users: Users, block: int) -> Rows:
    """All events of a block of users.

    A session keeps to one interest. What is shown follows `Items.sample`, except that nothing is
    shown again that the user has clicked; the recorded propensity is exact for that.
    """
    random = world.random(EVENTS, block)
    count = len(users.country)
    per_user = world.events / (world.session * world.expected_click_rate())
    sessions = 1 + random.poisson(np.maximum(users.activity * per_user - 1, 0))
    starts = _session_starts(random, sessions, world.days * DAY_S)
    most = world.items // 2  # clicks of one user: something must be left to show
    clicked = _Clicked(count, most)
    parts: list[tuple[np.ndarray, ...]] = []
    for session in range(int(sessions.max())):
        rows = np.flatnonzero(sessions > session)
        second = starts[rows, session]
        sums = np.cumsum(users.weights(rows, world.moved(second)), axis=1)
        draw = random.random((len(rows), 1))
        pick = np.minimum((sums < draw).sum(axis=1), world.interests - 1)
        cluster = users.interests[rows, pick]
        length = np.minimum(1 + random.poisson(world.session - 1, len(rows)), _SESSION_MAX)
        last = np.full(len(rows), -1)
        for step in range(int(length.max())):
            on = np.flatnonzero((length > step) & (clicked.counts[rows] < most))
            if not len(on):
                break
            who = rows[on]
            tilt = world.tilt(step + 1)
            shown, propensity = _show(random, items, clicked, who, cluster[on], last[on], tilt)
            affinity = users.affinity(who, items.cluster[shown], world.moved(second[on]))
            price = items.log_price[shown]
            looked = (step + 1.0) ** -world.position_bias
            click = random.random(len(on)) < looked * world.click_probability(affinity, price)
            buy = click & (random.random(len(on)) < world.buy_probability(affinity, price))
            quantity = np.where(buy, 1 + random.poisson(0.3, len(on)), 0)
            kind = np.where(buy, PURCHASE, np.where(click, CLICK, IMPRESSION))
            of_list = (np.full(len(on), session), np.full(len(on), step + 1))
            parts.append((who, shown, second[on], kind, quantity, propensity, *of_list))
            clicked.add(who[click], shown[click])
            last[on[click]] = shown[click]
            second = second + 5 + np.minimum(random.exponential(30.0, len(rows)), 90).astype(int)
    columns = map(np.concatenate, zip(*parts, strict=True))
    user, item, second, kind, quantity, propensity, listed, place = columns
    back = np.flatnonzero(kind == PURCHASE)
    back = back[random.random(len(back)) < world.return_rate]
    left = world.days * DAY_S - second[back]
    when = second[back] + 1 + (random.random(len(back)) * np.maximum(left - 1, 0)).astype(int)
    user, item = np.append(user, user[back]), np.append(item, item[back])
    second, kind = np.append(second, when), np.append(kind, np.full(len(back), RETURN))
    quantity = np.append(quantity, -quantity[back])
    propensity = np.append(propensity, np.full(len(back), np.nan))
    listed, place = (np.append(column, np.zeros_like(back)) for column in (listed, place))
    order = np.lexsort([user, second])
    ordered = (user, item, second, kind, quantity, propensity, listed, place)
    return Rows(*(column[order] for column in ordered))


def _session_starts(random: np.random.Generator, sessions: np.ndarray, span: int) -> np.ndarray:
    """Seconds [B, most sessions], ascending, with a gap between any two of a user's sessions."""
    most = int(sessions.max())
    gap = np.minimum(_GAP_S, span // (2 * sessions))[:, None]
    free = span - gap * sessions[:, None]
    inside = np.arange(most) < sessions[:, None]
    draws = np.sort(np.where(inside, random.random((len(sessions), most)), 2.0), axis=1)
    return (np.where(inside, draws, 0.0) * free).astype(np.int64) + gap * np.arange(most)


class _Clicked:
    """The items each user has clicked so far, in the order of clicks."""

    def __init__(self, users: int, most: int) -> None:
        self.counts = np.zeros(users, dtype=np.int64)
        self.items = np.full((users, 16), -1)
        self._most = most

    def add(self, users: np.ndarray, items: np.ndarray) -> None:
        if len(users) and self.counts[users].max() == self.items.shape[1]:
            more = np.full((len(self.counts), min(self.items.shape[1], self._most)), -1)
            self.items = np.concatenate([self.items, more], axis=1)
        self.items[users, self.counts[users]] = items
        self.counts[users] += 1

    def of(self, users: np.ndarray) -> np.ndarray:
        """[n, most clicks of these] items, -1 behind a user's last click."""
        return self.items[users, : int(self.counts[users].max(initial=0))]


def _show(
    random: np.random.Generator,
    items: Items,
    clicked: _Clicked,
    users: np.ndarray,
    cluster: np.ndarray,
    last: np.ndarray,
    tilt: float,
) -> tuple[np.ndarray, np.ndarray]:
    """An item for each user that the user has not clicked, and its probability."""
    seen = clicked.of(users)
    shown = items.sample(random, cluster, last, tilt)
    again = np.flatnonzero((seen == shown[:, None]).any(axis=1))
    while len(again):
        shown[again] = items.sample(random, cluster[again], last[again], tilt)
        again = again[(seen[again] == shown[again, None]).any(axis=1)]
    taken = items.probability(np.maximum(seen, 0), cluster[:, None], last[:, None], tilt)
    left = 1.0 - np.where(seen >= 0, taken, 0.0).sum(axis=1)
    return shown, items.probability(shown, cluster, last, tilt) / left
