"""The loop closed: lists explore, users click by the planted truth, and the log says what another
bundle would have been worth."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from feature_store.sources.synthetic_truth import Truth
from recsys.config import parse_config
from recsys.evaluation.off_policy.logged_lists import read_lists
from recsys.evaluation.off_policy.target import lists_of_bundle
from recsys.policy.arms import arm_of
from recsys.policy.exploration import Exploration, explored
from recsys.policy.exposure_log import ExposureLog
from recsys.policy.exposures import exposure_schema_of, exposures, rows_of
from recsys.policy.noise import seeds_of
from recsys.serving.recommender import Recommender

TreeOf = Callable[..., dict[str, Any]]
Ask = Callable[..., tuple[Any, str, str]]
K, ROUNDS, DAY = 3, 6, 86_400
BEGINS = int(pd.Timestamp("2024-03-10").timestamp())  # behind the log that the bundles know
HOW = Exploration(share=0.9, pool=24)
ARMS = {"old": 0.7, "new": 0.3}


@pytest.fixture(scope="module")
def run(tree_of: TreeOf, recsys: Ask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over a synthetic log of 24 items; its bundle is the new one."""
    folder = tmp_path_factory.mktemp("loop")
    data = {"source": "synthetic", "users": 300, "items": 24, "clusters": 4, "events": 8}
    tree = tree_of(folder, data=data, retriever={"name": "item_knn"}, baselines=[])
    config = folder / "new.toml"
    config.write_text(parse_config({**tree, "name": "new"}).to_toml())
    assert recsys("run", config)[0] == 0
    return folder / "new"


@pytest.fixture(scope="module")
def truth(run: Path) -> Truth:
    (store,) = run.parent.glob("**/truth")
    return Truth.load(store.parent)


@pytest.fixture(scope="module")
def log(run: Path, truth: Truth) -> Path:
    """On six days every user sees a list, of what sells or of the new bundle, each exploring, and
    clicks and buys by the truth."""
    random, new = np.random.default_rng(0), Recommender.open(run / "bundle")
    columns, items = exposure_schema_of(new.bundle.schema), new.finder.item_ids
    rows, users = items.to_numpy() - 1, pa.array(new.users())
    arms = arm_of(users, ARMS, "loop")
    own = new.answer(new.requests_of(users), k=len(items), exclude_seen=False)
    sells = np.argsort(truth.items.rank[rows], kind="stable")
    pool = np.where(arms[:, None] == "new", own.places, sells)
    with ExposureLog(run.parent / "exposures", columns) as log:
        for day in range(ROUNDS):
            names = pa.array([f"{day}/{user}" for user in users.to_pylist()])
            seeds = seeds_of(names, "loop")
            shown = explored(pool, np.zeros(pool.shape), K, HOW, seeds)
            log.write(
                exposures(
                    columns,
                    users=users,
                    items=items,
                    places=shown.places,
                    propensities=shown.propensities,
                    times=pa.array([BEGINS + day * DAY] * len(users), pa.timestamp("s")),
                    lists=names,
                    arms=arms,
                    bundles=arms,
                    prices=truth.items.price[rows],
                )
            )
            row, _ = np.nonzero(shown.places >= 0)
            user, item = users.to_numpy()[row], items.to_numpy()[shown.places.ravel()]
            times = np.full(len(row), BEGINS + day * DAY, "datetime64[s]")
            clicked = random.random(len(row)) < truth.click_probability(user, item, times)
            buying = truth.buy_probability(user, item, times)
            bought = clicked & (random.random(len(row)) < buying)
            for kind, happened in (("click", clicked), ("purchase", bought)):
                events = {
                    "user": user[happened],
                    "item": item[happened],
                    "event_type": [kind] * int(happened.sum()),
                    "time": BEGINS + day * DAY + 30 + np.arange(int(happened.sum())) % 600,
                    "list_id": names.take(pa.array(row[happened])),
                }
                log.write(rows_of(events, columns))
    return run.parent / "exposures"


def true_values(run: Path, truth: Truth, log: Path) -> dict[str, float]:
    """What a list of the new bundle is worth to the users of the old arm, at those moments."""
    lists = read_lists(str(log), ["old"])
    target, _ = lists_of_bundle(Recommender.open(run / "bundle"), lists, exclude_seen=False)
    assert (target >= 0).all() and (target < len(lists.items)).all()
    users = np.repeat(lists.users.to_numpy()[lists.of_user], K)
    items = lists.items.to_numpy()[target.ravel()]
    times = np.repeat(lists.times.astype("datetime64[us]"), K)
    clicks = truth.click_probability(users, items, times)
    money = clicks * truth.buy_probability(users, items, times) * truth.items.price[items - 1]
    return {"clicks": K * clicks.mean(), "GMV": K * money.mean()}


def test_the_log_says_what_the_other_bundle_is_worth(
    run: Path, truth: Truth, log: Path, recsys: Ask, tmp_path: Path
) -> None:
    out, true = tmp_path / "value.csv", true_values(run, truth, log)
    words = ("evaluate", "--policy", run, "--log", log, "--arm", "old", "--include-seen")
    status, told, errors = recsys(*words, "--out", out)
    assert status == 0, errors
    values = pd.read_csv(out).set_index(["reward", "estimator"])
    for reward, name in product(true, ("IPS", "SNIPS", "DR")):
        low, high = values.loc[(reward, name), ["low", "high"]]
        assert low <= true[reward] <= high, (reward, name)
    gain = values.loc[("clicks", "DR - logged")]
    logged = values.loc[("clicks", "logged"), "value"]
    assert 0 < gain.low < true["clicks"] - logged < gain.high
    assert " lists of 216 users" in told and "warning" not in told
    assert "A/B test of clicks: " in told and "users in each arm show a difference of +" in told


def test_a_logged_bundle_without_exploring_is_a_policy_too(
    run: Path, log: Path, recsys: Ask
) -> None:
    """A tenth of the lists are its own, so that even whole lists tell something."""
    for assume in ("place", "cascade", "list"):
        status, told, errors = recsys(
            *("evaluate", "--policy", run / "bundle", "--log", log, "--arm", "new"),
            *("--include-seen", "--assume", assume, "--clip", 50),
        )
        assert status == 0, errors
        assert "DR - logged" in told and "effective sample" in told


def test_histories_are_those_of_the_moment(run: Path, log: Path) -> None:
    """Items that were clicked before a list are left out of it, and only those."""
    new, lists = Recommender.open(run / "bundle"), read_lists(str(log))
    target, _ = lists_of_bundle(new, lists)
    user, item, time = lists.reacted
    later = 0
    for row in range(len(lists)):
        own = user == lists.of_user[row]
        before = item[own & (time < lists.times[row])]
        assert not np.isin(target[row], before).any()
        later += np.isin(target[row], item[own & (time > lists.times[row])]).sum()
    assert later > 0


def test_a_bundle_that_knows_what_came_later_is_told_of(
    run: Path, log: Path, recsys: Ask, tmp_path: Path
) -> None:
    """A log of a year before: histories are empty then, and the fallback answers."""
    rows = pa.concat_tables(pa.parquet.read_table(path) for path in sorted(log.glob("*.parquet")))
    year = pa.scalar(366 * DAY * 1_000_000, pa.duration("us"))
    moved = pa.compute.subtract(rows["time"], year)
    pa.parquet.write_table(
        rows.set_column(rows.column_names.index("time"), "time", moved), tmp_path / "a.parquet"
    )
    status, told, errors = recsys("evaluate", "--policy", run, "--log", tmp_path, "--include-seen")
    assert status == 0, errors
    assert "the bundle knows events up to 2024-" in told and "begins on 2023-03-10" in told
    assert " lists are the bundle's fallback" in told  # of whoever has not clicked yet


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--policy", "new"), "--policy and --log together"),
        (("--policy", "new", "--log", "exposures", "new.toml"), "and nothing else"),
        ((), "name a config or a run, or give --policy and --log"),
        (
            ("--policy", "new", "--log", "exposures", "--arm", "blue"),
            "arm 'blue'; its arms: new, old",
        ),
        (("--policy", "new", "--log", "exposures", "--clip", "0"), "clip is 0"),
        (("--policy", "new", "--log", "nowhere"), "no Parquet or CSV file is there"),
        (("--policy", "new", "--log", "new"), "is no log of exposures"),
    ],
)
def test_what_cannot_be_valued_is_told_in_a_line(
    run: Path,
    log: Path,
    recsys: Ask,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(run.parent)
    status, _, errors = recsys("evaluate", *words)
    assert message in str(status) and len(errors.strip().splitlines()) == 1
