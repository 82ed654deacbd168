"""Negatives: items drawn for a positive, of those that its user might have chosen and did not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from feature_store.hashing import keys_of_codes, mix
from feature_store.labels import NegativesConfig
from feature_store.schema import Schema
from feature_store.vocabulary import Vocabulary

_UNIT = 1 << 10  # weights are whole numbers, of which one event makes so many


Find: TypeAlias = Callable[[pa.Table], np.ndarray]
"""Item rows [n, budget] of n requests, best first, 0 behind the last: of rows with the user, the
second, the features of the user, and lists of events."""


@dataclass(frozen=True)
class Lists:
    """What finds the lists that negatives are drawn from.

    Attributes:
        histories: The lists of a request, by name: events of some types, or all.
        open: Given the schema, the vocabularies by table, and the item rows that may be found.
    """

    histories: Mapping[str, tuple[str, ...]]
    open: Callable[[Schema, Mapping[str, Vocabulary], np.ndarray], Find]


class DrawnNegatives:
    """Draws items for positives by a hash of the seed, the raw ids of user and item, and the
    second: whatever the order, the engine and the numbers of ids, the same ones.

    A draw takes a known item j that is none of the user's own with probability w_j / sum w; w is 1,
    or max(n_j, 1)^exponent of n_j training events. An item is known from the second after its first
    event. With `repeats` only what the user took at the positive's second is their own. With lists
    the first `listed` draws of a positive take each known item of its list alike that is none of
    the user's own, where there is one. Memory is some 50 bytes an item.
    """

    def __init__(
        self,
        config: NegativesConfig,
        *,
        user_keys: np.ndarray | None,
        item_keys: np.ndarray,
        items: np.ndarray,
        first: np.ndarray | None,
        events: np.ndarray,
    ) -> None:
        """Keys of the ids of rows 1, 2, ..., None for users that are known by their codes; and of N
        items with events (`items`: their rows) the
        second of the `first` one, where there is a clock, and the number of those in training."""
        self.per_positive, self.repeats = config.per_positive, config.repeats
        self._seed, self._listed = config.seed, config.listed
        self._user_keys = user_keys
        self._item_keys = item_keys.view(np.uint64)
        since = np.full(len(items), -np.inf) if first is None else first.astype(np.float64)
        order = np.lexsort((item_keys[items - 1], since))
        self._items, self._first = items[order], since[order]
        self._place = np.zeros(len(item_keys) + 1, dtype=np.int64)  # of an item's row
        self._place[self._items] = np.arange(len(items))
        self._weights = np.round(_weights(config, events[order]) * _UNIT).astype(np.int64)
        self._below = np.concatenate([[0], np.cumsum(self._weights)])  # weight before each place

    def draw(
        self,
        user: int,
        own: np.ndarray,
        items: np.ndarray,
        seconds: np.ndarray,
        lists: np.ndarray | None = None,
    ) -> np.ndarray:
        """Rows of items [m, per_positive] for m positives of a user (`items` at `seconds`), whose
        own items are `own`, and whose lists [m, n] hold item rows, or 0; 0 where nothing is left to
        draw from."""
        number = self._hash(user, items, seconds)
        drawn = self._of_all(number, own, seconds)
        if lists is not None:
            usable = (lists != 0) & ~np.isin(lists, own)
            usable &= self._first[self._place[lists]] < seconds[:, None]
            count = usable.sum(1)[:, None]
            kept = np.argsort(~usable, axis=1, kind="stable")  # their columns come first
            which = (number % np.maximum(count, 1).astype(np.uint64)).astype(np.int64)
            listed = np.take_along_axis(lists, np.take_along_axis(kept, which, 1), 1)
            from_list = (count > 0) & (np.arange(self.per_positive) < self._listed)
            drawn = np.where(from_list, listed, drawn)
        return drawn

    def _of_all(self, number: np.ndarray, own: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        own = np.unique(self._place[own])
        taken = np.concatenate([[0], np.cumsum(self._weights[own])])  # of own items before each
        others = self._below[own] - taken[:-1]  # weight of others before each own item
        known = np.searchsorted(self._first, seconds, side="left")
        total = self._below[known] - taken[np.searchsorted(own, known, side="left")]
        point = number % np.maximum(total, 1).astype(np.uint64)[:, None]
        at = point.astype(np.int64)
        # a point among the others, moved behind the own items that lie before it
        at += taken[np.searchsorted(others, at, side="right")]
        place = np.searchsorted(self._below, at, side="right") - 1
        possible = (total > 0)[:, None]
        return np.where(possible, self._items[np.where(possible, place, 0)], 0)

    def _hash(self, user: int, items: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        keys = self._user_keys
        key = keys_of_codes(np.array([user])) if keys is None else keys[user - 1 : user]
        state = mix(np.uint64(self._seed + 1) ^ key.view(np.uint64))
        state = mix(state + self._item_keys[items - 1])
        state = mix(state ^ seconds.astype(np.int64).view(np.uint64))
        return mix(state[:, None] ^ mix(np.arange(1, self.per_positive + 1, dtype=np.uint64)))


def log_draws(config: NegativesConfig, events: np.ndarray) -> np.ndarray:
    """Log of how many negatives of each item [N] there are beside a positive of somebody who does
    not have it, from training `events` [N]: `log(n q_i)`, of n draws with `q_i = w_i / sum w`.

    Added to a logit that was learned beside these draws it undoes them: what is left is the log
    odds that an event is of the item, rather than of any other. Source: King & Zeng, Logistic
    Regression in Rare Events Data, 2001 (prior correction), item by item.

    Of draws from lists of b items `q_i` is 1 / b of each that is on the user's list, which all are
    that a cascade asks for; of items that no list holds it says too much.
    """
    weights = _weights(config, events)
    number = (config.per_positive - config.listed) * weights / weights.sum()
    if config.lists is not None:
        number += config.listed / min(config.lists.budget, len(events))
    log: np.ndarray = np.log(number)
    return log


def _weights(config: NegativesConfig, events: np.ndarray) -> np.ndarray:
    exponent = config.exponent if config.drawn == "popularity" else 0.0
    weights: np.ndarray = np.maximum(events, 1).astype(np.float64) ** exponent
    return weights
