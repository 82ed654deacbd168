"""Counterfactual values: by hand, and against the synthetic log, whose true values are known."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest

from feature_store.errors import DataError
from feature_store.sources.synthetic_log import IMPRESSION, RETURN, simulate
from feature_store.sources.synthetic_world import Items, Users, World
from recsys.evaluation.counterfactual import (
    Estimate,
    FewEvents,
    doubly_robust,
    inverse_propensity,
    self_normalised,
)

REWARDS = np.array([1.0, 0.0, 1.0, 0.0])
PROPENSITIES = np.array([0.5, 0.25, 0.2, 0.5])
TARGET = np.array([0.25, 0.5, 0.8, 0.0])  # weights 0.5, 2, 4, 0


def test_values_by_hand() -> None:
    """IPS (0.5 + 4) / 4, SNIPS 4.5 / 6.5, effective sample size 6.5 ** 2 / (0.25 + 4 + 16)."""
    ips = inverse_propensity(REWARDS, PROPENSITIES, TARGET)
    assert ips.value == pytest.approx(1.125)
    assert ips.effective_sample_size == pytest.approx(42.25 / 20.25)
    assert (ips.rows, ips.clip, ips.clipped) == (4, None, 0)
    # terms 0.5, 0, 4, 0 have standard deviation 1.9311; Student's t with 3 degrees is 3.1824
    assert ips.high - ips.value == pytest.approx(3.1824 * 1.9311 / 2, rel=1e-4)
    assert ips.low == 0  # no reward is below it; the margin alone would go there
    debts = inverse_propensity(REWARDS - 1, PROPENSITIES, TARGET)
    assert debts.value - debts.low == pytest.approx(debts.high - debts.value)
    assert self_normalised(REWARDS, PROPENSITIES, TARGET).value == pytest.approx(4.5 / 6.5)
    predicted, expected = np.array([0.5, 0.5, 0.5, 0.0]), np.array([0.4, 0.2, 0.4, 0.2])
    # expected + w (r - predicted): 0.4 + 0.25, 0.2 - 1, 0.4 + 2, 0.2
    robust = doubly_robust(REWARDS, PROPENSITIES, TARGET, predicted, expected)
    assert robust.value == pytest.approx((0.65 - 0.8 + 2.4 + 0.2) / 4)


def test_the_interval_of_snips_by_hand() -> None:
    """That of a ratio: the weights vary as the rewards do. Weights 1/2, 1, 3/2, 1, 2: terms 1, 4,
    9, 5, 4 sum to 23, and weights to 6."""
    rewards, target = np.array([2.0, 4, 6, 5, 2]), np.array([0.25, 0.5, 0.75, 0.5, 1])
    found = self_normalised(rewards, np.full(5, 0.5), target)
    assert found.value == pytest.approx(23 / 6)
    # residuals w (r - 23/6): -11/12, 1/6, 13/4, 7/6, -11/3; squares sum to 26.2361
    error = np.sqrt(26.2361 * 5 / 4) / 6
    assert found.high - found.value == pytest.approx(2.7764 * error, rel=1e-4)  # t, 4 degrees


@pytest.mark.parametrize("estimator", [inverse_propensity, self_normalised])
def test_two_events_of_many_are_no_sample(estimator: Callable[..., Estimate]) -> None:
    """Two weights of 1000 beside 9,998 of .01: (2000 + 99.98)^2 / (2 * 10^6 + .9998) = 2.2."""
    rewards, propensities = np.zeros(10_000), np.full(10_000, 0.5)
    target = np.full(10_000, 0.005)
    rewards[:2], propensities[:2], target[:2] = 1, 0.001, 1
    with pytest.warns(FewEvents, match=r"effective sample of 2\.2 of 10,000 events"):
        found = estimator(rewards, propensities, target)
    assert found.effective_sample_size == pytest.approx(2.2, abs=0.01) and found.low >= 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator(rewards, propensities, propensities)


@pytest.mark.parametrize(
    ("rows", "alike", "few"),
    [
        *((10_000, 99, True), (10_000, 101, False)),  # a hundredth of the events
        *((1_000, 29, True), (1_000, 31, False)),  # thirty
        *((40, 19, True), (40, 21, False)),  # half of them
        (40, 0, True),
    ],
)
def test_a_small_effective_sample_is_said_to_be_one(rows: int, alike: int, few: bool) -> None:
    """So many events of one weight are as many; the others have none."""
    propensities = np.full(rows, 0.5)
    target = np.where(np.arange(rows) < alike, 0.5, 0.0)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", FewEvents)
        found = inverse_propensity(np.ones(rows), propensities, target)
    assert found.effective_sample_size == pytest.approx(alike)
    assert bool(told) == few


def test_clipping_cuts_weights_and_says_so() -> None:
    cut = inverse_propensity(REWARDS, PROPENSITIES, TARGET, clip=1.5)
    assert cut.value == pytest.approx((0.5 + 1.5) / 4)
    assert (cut.clip, cut.clipped) == (1.5, 2)
    assert cut.effective_sample_size == pytest.approx(3.5**2 / (0.25 + 2 * 1.5**2))


def test_the_logging_policy_itself_has_the_mean_reward_and_all_rows() -> None:
    for estimator in (inverse_propensity, self_normalised):
        own = estimator(REWARDS, PROPENSITIES, PROPENSITIES)
        assert own.value == pytest.approx(REWARDS.mean())
        assert own.effective_sample_size == pytest.approx(4)


def test_intervals_know_that_events_of_a_user_go_together() -> None:
    """Every row three times over tells nothing new: the interval stays that of single rows."""
    thrice = [np.repeat(values, 3) for values in (REWARDS, PROPENSITIES, TARGET)]
    users = np.repeat(["ann", "bob", "cy", "dan"], 3)
    for estimator in (inverse_propensity, self_normalised):
        once = estimator(REWARDS, PROPENSITIES, TARGET)
        own = estimator(*thrice, clusters=users)
        assert [own.low, own.high] == pytest.approx([once.low, once.high])
        naive = estimator(*thrice)
        assert naive.high - naive.low < 0.6 * (own.high - own.low)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"propensities": [0.5, 0.0, 0.2, 0.5]}, r"propensities\[1\] is 0.0: it must be above 0"),
        ({"propensities": [0.5, 1.0, 1.2, 3]}, r"propensities\[2\] is 1.2 \(and 1 more row"),
        ({"propensities": [np.nan, 1, 1, 1]}, r"propensities\[0\] is nan: it must be a finite"),
        ({"rewards": [0, 1, 2, np.inf]}, r"rewards\[3\] is inf"),
        ({"target": [0, 1, -0.1, 0]}, r"target\[2\] is -0.1: it must lie between 0 and 1"),
        ({"target": [0, 1, 0]}, "target has 3 values, rewards has 4"),
        ({"target": [[0.1]] * 4}, r"target has shape \(4, 1\)"),
        ({"clusters": [1, 2]}, "clusters has 2 values, rewards has 4"),
        ({"clusters": [7, 7, 7, 7]}, "at least two clusters: got 1"),
        ({"clip": 0.0}, "clip is 0.0: it must be above 0"),
    ],
)
def test_rows_that_cannot_be_are_refused(changes: dict, message: str) -> None:
    log = {"rewards": REWARDS, "propensities": PROPENSITIES, "target": TARGET} | changes
    with pytest.raises(DataError, match=message) as refused:
        inverse_propensity(**log)
    assert "\n" not in str(refused.value)


def test_other_impossible_input_is_refused() -> None:
    with pytest.raises(DataError, match="shares no action with the log"):
        self_normalised(REWARDS, PROPENSITIES, np.zeros(4))
    with pytest.raises(DataError, match=r"expected\[2\] is nan"):
        doubly_robust(REWARDS, PROPENSITIES, TARGET, REWARDS, np.where(TARGET == 0.8, np.nan, 1))
    with pytest.raises(DataError, match="at least two rows: got 0"):
        inverse_propensity(*[np.empty(0)] * 3)


# ---- against the truth of the synthetic log

DRAWS, USERS_A_DRAW = 500, 32


@dataclass
class Logged:
    """Impressions of all draws; `clicks` [n, I] is the true P(click) of every item there."""

    draw: np.ndarray
    user: np.ndarray
    item: np.ndarray
    reward: np.ndarray
    propensity: np.ndarray
    target: np.ndarray  # [n, I] what the policy in question would show
    clicks: np.ndarray
    guess: np.ndarray  # [n, I] P(click) as a model sees it that knows nothing of prices

    def of_logged(self, values: np.ndarray) -> np.ndarray:
        return values[np.arange(len(self.item)), self.item]

    @cached_property
    def true_values(self) -> np.ndarray:
        """[n] P(click) under the target policy, in each row's context."""
        return (self.target * self.clicks).sum(axis=1)


@pytest.fixture(scope="module")
def logged() -> Logged:
    """One world, and as many independent groups of its users as there are draws."""
    world = World(
        seed=0, users=DRAWS * USERS_A_DRAW, items=30, clusters=5, events=3, exploration=0.3,
        click_price=-0.8,
    )  # fmt: skip
    items = Items.draw(world)
    parts = []
    for block in range(-(-world.users // 2048)):
        users = Users.draw(world, block)
        rows = simulate(world, items, users, block)
        shown = np.flatnonzero(rows.kind != RETURN)
        shown = shown[np.argsort(rows.user[shown], kind="stable")]
        user, item, click = rows.user[shown], rows.item[shown], rows.kind[shown] != IMPRESSION
        every = np.arange(world.items)
        # clicked by the user before: nothing of that is shown again
        clicked = np.zeros((len(shown), world.items), dtype=np.int32)
        clicked[np.arange(len(shown)), item] = click
        before = clicked.cumsum(axis=0) - clicked
        before -= before[np.searchsorted(user, user)]
        moved = world.moved(rows.second[shown])
        weights = users.weights(user, moved)  # [n, interests]
        affinity = np.zeros((len(shown), world.clusters))
        np.put_along_axis(affinity, users.interests[user], weights, axis=1)
        affinity = affinity[:, items.cluster[every]]
        # knows better than the log what the user likes; never shows what was clicked
        wish = np.where(before > 0, 0.0, 0.2 + 5 * affinity)
        parts.append(
            Logged(
                draw=(users.first + user) // USERS_A_DRAW,
                user=users.first + user,
                item=item,
                reward=click.astype(float),
                propensity=rows.propensity[shown],
                target=wish / wish.sum(axis=1, keepdims=True),
                clicks=world.click_probability(affinity, items.log_price),
                guess=world.click_probability(affinity, np.zeros(world.items)),
            )
        )
    fields = list(Logged.__dataclass_fields__)
    return Logged(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


Estimates = Callable[[str], list[Estimate]]


@pytest.fixture(scope="module")
def estimates(logged: Logged) -> Estimates:
    """What an estimator says in every draw."""
    target = logged.of_logged(logged.target)
    models = {"good": logged.guess, "wrong": 1 - logged.guess}
    known: dict[str, list[Estimate]] = {}

    def estimates(name: str) -> list[Estimate]:
        if name not in known:
            known[name] = []
            for draw in range(DRAWS):
                rows = np.flatnonzero(logged.draw == draw)
                log = [c[rows] for c in (logged.reward, logged.propensity, target)]
                if name in models:
                    model = models[name][rows]
                    predicted = model[np.arange(len(rows)), logged.item[rows]]
                    expected = (logged.target[rows] * model).sum(axis=1)
                    one = doubly_robust(*log, predicted, expected, clusters=logged.user[rows])
                else:
                    estimator = {"ips": inverse_propensity, "snips": self_normalised}[name]
                    one = estimator(*log, clusters=logged.user[rows])
                known[name].append(one)
        return known[name]

    return estimates


ALL = pytest.mark.parametrize("name", ["ips", "snips", "good", "wrong"])


@ALL
def test_intervals_cover_the_true_value_at_their_stated_rate(
    estimates: Estimates, logged: Logged, name: str
) -> None:
    """The truth is that of the population of contexts, known 22 times as sharply as by a draw."""
    truth = logged.true_values.mean()
    covered = np.mean([one.low <= truth <= one.high for one in estimates(name)])
    assert abs(covered - 0.95) < 3 * np.sqrt(0.95 * 0.05 / DRAWS)


@ALL
def test_estimates_are_unbiased(estimates: Estimates, logged: Logged, name: str) -> None:
    """Held against the true value in the contexts of the same draw, which is the sharper test."""
    truth = np.array([logged.true_values[logged.draw == draw].mean() for draw in range(DRAWS)])
    errors = np.array([one.value for one in estimates(name)]) - truth
    assert abs(errors.mean()) < 3 * errors.std() / np.sqrt(DRAWS)
    assert 3 * errors.std() / np.sqrt(DRAWS) < 0.03 * truth.mean()  # the test can tell


def test_the_question_is_worth_asking(logged: Logged) -> None:
    """The target policy is worth more than the logging policy was."""
    assert logged.true_values.mean() > 1.08 * logged.reward.mean()


def test_a_good_model_of_rewards_makes_the_variance_smaller(estimates: Estimates) -> None:
    spread = {
        name: np.std([one.value for one in estimates(name)]) for name in ("ips", "good", "wrong")
    }
    assert spread["good"] < 0.9 * spread["ips"]
    width = {name: np.mean([one.high - one.low for one in estimates(name)]) for name in spread}
    assert width["good"] < 0.9 * width["ips"]


def test_clipping_lowers_the_value_of_rewards_that_are_not_negative(logged: Logged) -> None:
    log = (logged.reward, logged.propensity, logged.of_logged(logged.target))
    cut, whole = inverse_propensity(*log, clip=2.0), inverse_propensity(*log)
    assert 0 < cut.clipped < cut.rows and cut.value < whole.value
    assert cut.effective_sample_size > whole.effective_sample_size
