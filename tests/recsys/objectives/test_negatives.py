"""Negatives: alike on every process, over known items only, at the chance they claim."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare

from recsys.objectives.negatives import NegativeSampler

EVENTS = torch.tensor([0, 1, 0, 16, 81, 0, 4, 0])
TRAINED = [1, 3, 4, 6]


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_a_step_has_one_draw_and_another_step_another(kind: str) -> None:
    events = torch.arange(1000)
    one, same = (NegativeSampler(events, kind, seed=3) for _ in range(2))  # type: ignore[arg-type]
    other = NegativeSampler(events, kind, seed=4)  # type: ignore[arg-type]
    torch.manual_seed(99)  # the process's own random state has no part in it
    first, second = one.sample(64, 5, 2)
    assert all(map(torch.equal, (first, second), same.sample(64, 5, 2)))
    assert not torch.equal(first, second)
    assert not torch.equal(first, one.sample(64, 6)[0])
    assert not torch.equal(first, other.sample(64, 5)[0])


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_draws_are_distinct_ascending_and_of_trained_items(kind: str) -> None:
    sampler = NegativeSampler(EVENTS, kind)  # type: ignore[arg-type]
    found = [sampler.sample(6, step)[0].tolist() for step in range(200)]
    assert all(rows == sorted(set(rows)) and len(rows) <= 6 for rows in found)
    assert sorted({row for rows in found for row in rows}) == TRAINED


@pytest.mark.parametrize(
    ("kind", "power", "shares"),
    [
        ("uniform", 0.75, [1, 1, 1, 1]),
        ("popularity", 1.0, [1, 16, 81, 4]),
        ("popularity", 0.5, [1, 4, 9, 2]),
    ],
)
def test_single_draws_follow_the_stated_chances(kind: str, power: float, shares: list[int]) -> None:
    sampler = NegativeSampler(EVENTS, kind, power=power)  # type: ignore[arg-type]
    rows = torch.cat([sampler.sample(1, step)[0] for step in range(4000)])
    counts = torch.bincount(rows, minlength=len(EVENTS))[TRAINED]
    expected = [4000 * share / sum(shares) for share in shares]
    assert chisquare(counts.numpy(), expected).pvalue > 1e-4


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_the_claimed_chance_is_the_frequency(kind: str) -> None:
    sampler = NegativeSampler(EVENTS, kind)  # type: ignore[arg-type]
    steps = 3000
    rows = torch.cat([sampler.sample(5, step)[0] for step in range(steps)])
    frequency = torch.bincount(rows, minlength=len(EVENTS))[TRAINED] / steps
    chance = sampler.log_expected(torch.tensor(TRAINED), 5).exp()
    torch.testing.assert_close(chance, frequency, atol=0.04, rtol=0)


def test_the_chance_of_a_certain_item_is_1_and_of_an_untrained_one_is_finite() -> None:
    sampler = NegativeSampler(torch.tensor([0, 7, 0]))
    logs = sampler.log_expected(torch.tensor([1, 2]), 3)
    assert logs[0].item() == pytest.approx(0, abs=1e-6)
    assert torch.isfinite(logs).all()


def test_everything_is_every_trained_item_once() -> None:
    assert NegativeSampler(EVENTS).everything().tolist() == TRAINED


def test_known_items_without_training_events_are_drawn_but_not_by_popularity() -> None:
    known = EVENTS.clone()
    known[5] = 1
    found = {
        kind: NegativeSampler(EVENTS, kind, known_events=known).everything().tolist()  # type: ignore[arg-type]
        for kind in ("uniform", "popularity", "mixed")
    }
    assert found == {"uniform": [1, 3, 4, 5, 6], "popularity": TRAINED, "mixed": [1, 3, 4, 5, 6]}
    assert NegativeSampler(EVENTS, known_events=known).items == 5
