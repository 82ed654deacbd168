"""Do intervals of a policy's value, from the log of another, hold the true value as they should?

    python -m benchmarks.off_policy            # 300 logs each, some minutes

Users of the synthetic marketplace click and buy by its planted truth, and look at place p with a
probability of p to minus `position_bias`. Each log is of other users, 1 to 5 lists each, whom a
policy that knows what sells, and little of users, shows lists that explore; what is valued is the
list of a policy that knows what users like, and never ran. Its true value is worked out over all
users. `full`: every item may be shown at every place. `thin`: the first place is kept and the pool
is small, so that much of the other policy has no chance: what has to happen there is a warning.

The last line is JSON: of `full`, by estimator, the share of logs whose 95 % interval holds the true
value, of clicks and of GMV; bias in standard errors of the mean over logs; widths relative to the
value; `difference` that of the gain over what was logged. `warned` and `warned_thin` are shares of
logs with a warning that support is thin, or that items had no chance.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from feature_store.sources.synthetic_world import Items, Users, World
from recsys.evaluation.off_policy.logged_lists import LoggedLists, lists_of
from recsys.evaluation.off_policy.value import (
    DIFFERENCE,
    DR,
    IPS,
    LOGGED,
    SNIPS,
    PolicyValue,
    value_of,
)
from recsys.policy.exploration import Exploration, explored
from recsys.policy.exposures import exposure_schema, exposures, rows_of

COLUMNS = exposure_schema(pa.int64(), pa.int64())
FULL = Exploration(temperature=0.8, pool=16)
THIN = Exploration(temperature=0.4, keep=1, pool=7)
K, START = 4, 1_700_000_000
WORLD = World(seed=5, users=2048, items=16, clusters=4, drift=0, position_bias=0.5, successors=1)


@dataclass(frozen=True)
class Market:
    """A small marketplace, all of whose probabilities are known; P users, I items."""

    world: World = WORLD

    @cached_property
    def items(self) -> Items:
        return Items.draw(self.world)

    @cached_property
    def chances(self) -> tuple[np.ndarray, np.ndarray]:
        """Of a click on an item that is looked at, and of a purchase, given a click, [P, I]."""
        users, cells = Users.draw(self.world, 0), (self.world.users, self.world.items)
        who = np.repeat(np.arange(cells[0]), cells[1])
        cluster = np.tile(self.items.cluster, cells[0])
        affinity = users.affinity(who, cluster, np.zeros(len(who))).reshape(cells)
        price = self.items.log_price
        return (
            self.world.click_probability(affinity, price),
            self.world.buy_probability(affinity, price),
        )

    @cached_property
    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the policy that is logged, and of the one that never ran [P, I]."""
        click, noise = self.chances[0], np.random.default_rng(1)
        sells = 4 * click.mean(axis=0) + click
        return (
            sells + 0.3 * noise.standard_normal(click.shape),
            click + 0.1 * noise.standard_normal(click.shape),
        )

    @cached_property
    def target(self) -> np.ndarray:
        """Its lists [P, k]."""
        return np.argsort(-self.scores[1], axis=1)[:, :K]

    def looked(self) -> np.ndarray:
        """The chance that a place is looked at [k]."""
        return np.arange(1.0, K + 1) ** -self.world.position_bias

    def true_values(self) -> dict[str, float]:
        """Of a list of the policy that never ran."""
        return self._values_of(self.target)

    def _values_of(self, lists: np.ndarray) -> dict[str, float]:
        click, buy = (np.take_along_axis(chance, lists, axis=1) for chance in self.chances)
        clicks = self.looked() * click
        money = clicks * buy * self.items.price[lists]
        return {"clicks": clicks.sum(axis=1).mean(), "GMV": money.sum(axis=1).mean()}

    def log(self, how: Exploration, users: int, seed: int) -> tuple[LoggedLists, np.ndarray]:
        """A log of so many users, and the lists [L, k] that the other policy would have shown."""
        random = np.random.default_rng([seed, 11])
        drawn = random.integers(0, self.world.users, users)
        number = np.repeat(np.arange(users), np.minimum(1 + random.poisson(1.0, users), 5))
        who = drawn[number]
        scores = self.scores[0][who]
        order = np.argsort(-scores, axis=1)
        seeds = random.integers(0, 1 << 62, len(who))
        places, chance = explored(order, np.take_along_axis(scores, order, 1), K, how, seeds)
        names = np.array([f"{row:06d}" for row in range(len(who))])
        shown = exposures(
            COLUMNS,
            users=pa.array(number),
            items=pa.array(np.arange(self.world.items)),
            places=places,
            propensities=chance,
            times=pa.array(START + np.arange(len(who)), pa.timestamp("s")),
            lists=names,
            arms=["old"] * len(who),
            bundles=["1"] * len(who),
            prices=self.items.price,
        )
        click, buy = (c[who[:, None], places] for c in self.chances)
        clicked = random.random(click.shape) < self.looked() * click
        bought = clicked & (random.random(click.shape) < buy)
        events = [
            rows_of(
                {
                    "user": number[row],
                    "item": places[row, place],
                    "event_type": [kind] * len(row),
                    "time": START + row + 60,
                    "list_id": names[row],
                },
                COLUMNS,
            )
            for kind, happened in (("click", clicked), ("purchase", bought))
            for row, place in [np.nonzero(happened)]
        ]
        lists = lists_of(pa.concat_tables([shown, *events]))
        known = {int(item): row for row, item in enumerate(lists.items.to_pylist())}
        rows = np.array([known.get(item, len(known)) for item in range(self.world.items)])
        return lists, rows[self.target[who]]

    def valued(self, how: Exploration, users: int, seed: int) -> PolicyValue:
        """What such a log says of the other policy."""
        return value_of(*self.log(how, users, seed))


def coverage(market: Market, how: Exploration, users: int, logs: int) -> dict[str, float]:
    """Shares, biases and widths over logs, by estimator and reward; the share with a warning."""
    true, values = market.true_values(), [market.valued(how, users, seed) for seed in range(logs)]
    warned = [bool(value.support.warnings(value.lists)) for value in values]
    figures = {"warned": float(np.mean(warned))}
    for reward, truth in true.items():
        ending = "" if reward == "clicks" else f"_{reward.lower()}"
        for name in (IPS, SNIPS, DR):
            each = [value.estimates[reward][name] for value in values]
            middle = np.array([e.value for e in each])
            key = f"{name.lower()}{ending}"
            figures[f"coverage_{key}"] = float(np.mean([e.low <= truth <= e.high for e in each]))
            figures[f"bias_{key}"] = float((middle.mean() - truth) / middle.std() * logs**0.5)
            figures[f"width_{key}"] = float(np.mean([e.high - e.low for e in each]) / truth)
    clicks = [value.estimates["clicks"] for value in values]
    gain = true["clicks"] - np.mean(
        [e[LOGGED].value for e in clicks]
    )  # true but for a mean of logs
    inside = [e[DIFFERENCE].low <= gain <= e[DIFFERENCE].high for e in clicks]
    return {**figures, "coverage_difference": float(np.mean(inside))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--logs", type=int, default=300, help="logs of each kind")
    parser.add_argument("--users", type=int, default=800, help="of a log")
    options = parser.parse_args()
    began, market = time.perf_counter(), Market()
    full = coverage(market, FULL, options.users, options.logs)
    thin = coverage(market, THIN, options.users, options.logs)
    for name, value in full.items():
        print(f"{name:24} full {value:8.3f}   thin {thin[name]:8.3f}")
    line = {
        **full,
        "warned_thin": thin["warned"],
        "coverage_dr_thin": thin["coverage_dr"],
        "logs": options.logs,
        "users": options.users,
        "seconds": time.perf_counter() - began,
    }
    print(json.dumps({name: round(value, 4) for name, value in line.items()}))


if __name__ == "__main__":
    main()
