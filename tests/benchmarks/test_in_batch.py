"""How far in-batch negatives are from what is expected of them, in batches written down."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.in_batch import Seen, error, mixed
from recsys.objectives.negatives import NegativeSampler

ITEMS, BATCHES, SIZE = 12, 400, 16


def reckoned(seen: Seen) -> NegativeSampler:
    """By all events of each item."""
    counts = torch.cat(seen.targets).bincount(minlength=ITEMS)
    return NegativeSampler(counts, "popularity", power=1.0)


def test_batches_of_two_seasons_are_far_from_the_whole_year() -> None:
    random = torch.Generator().manual_seed(0)
    low, high = (
        torch.randint(first, last, (BATCHES // 2, SIZE), generator=random)
        for first, last in ((1, 8), (4, ITEMS))  # some items are sold all year
    )
    seasons = Seen([*low, *high], np.repeat([0, 1], BATCHES // 2))
    whole = reckoned(seasons).log_expected
    assert error(seasons, whole, ITEMS, epochs=1, by_event=True) > 0.1
    year = mixed(seasons, epochs=1)
    assert torch.cat(year.targets).bincount().equal(torch.cat(seasons.targets).bincount())
    assert error(year, whole, ITEMS, epochs=1, by_event=True) < 0.02


def test_items_of_long_histories_come_less_often_than_they_have_events() -> None:
    """One of four is drawn of the first users, all of the others."""
    random = torch.Generator().manual_seed(0)
    events = torch.randint(1, ITEMS, (BATCHES, SIZE), generator=random)
    rare = events > 7
    drawn = ~rare | (torch.rand(events.shape, generator=random) < 0.25)
    seen = Seen([of[kept] for of, kept in zip(events, drawn, strict=True)], np.zeros(BATCHES))
    by_events = reckoned(Seen(list(events), seen.blocks)).log_expected
    assert error(seen, by_events, ITEMS, epochs=1, by_event=False) > 0.3
    assert error(seen, reckoned(seen).log_expected, ITEMS, epochs=1, by_event=False) < 0.1
