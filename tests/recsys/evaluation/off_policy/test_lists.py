"""A small log of exposures by hand: its lists, weights by assumption, model, support and value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.errors import DataError
from recsys.evaluation.off_policy.logged_lists import LoggedLists, lists_of, read_lists
from recsys.evaluation.off_policy.reward_model import RewardModel, cross_fitted, ranks_in
from recsys.evaluation.off_policy.support import Support
from recsys.evaluation.off_policy.value import DIFFERENCE, DR, IPS, LOGGED, SNIPS, value_of
from recsys.evaluation.off_policy.weights import weights_of
from recsys.policy.exposures import exposure_schema, rows_of

COLUMNS = exposure_schema(pa.int64(), pa.string())
Row = dict[str, Any]


def shown(user: int, of: str, items: str, chances: list[float], **more: Any) -> list[Row]:
    """The exposures of a list of one-letter items."""
    return [
        {
            "user": user,
            "item": item,
            "event_type": "exposure",
            "time": 1_700_000_000 + user,
            "list_id": of,
            "place": place,
            "propensity": chance,
            "given_prefix": chance / 2,
            "arm": "A",
            "price": 2.0,
            **more,
        }
        for place, (item, chance) in enumerate(zip(items, chances, strict=True), 1)
    ]


def reacted(user: int, of: str | None, item: str, kind: str, **more: Any) -> Row:
    row = {"user": user, "item": item, "event_type": kind, "time": 1_700_000_100, "list_id": of}
    return {**row, **more}


ROWS = [
    *shown(1, "x", "ab", [0.5, 0.25]),
    *shown(2, "y", "ba", [0.5, 0.5]),
    *shown(3, "z", "a", [0.8]),
    *shown(4, "other", "cd", [0.5, 0.5], arm="B"),
    reacted(1, "x", "b", "click"),
    reacted(1, "x", "b", "click"),  # sent twice
    reacted(1, "x", "b", "click", time=1_700_000_200),  # and once more
    reacted(1, "x", "b", "purchase", price=5.0, quantity=2),
    reacted(1, "x", "b", "purchase", price=5.0, quantity=2),  # sent twice
    reacted(2, "y", "b", "purchase"),  # at the price that was shown
    reacted(2, "y", "c", "click"),  # which the list did not show
    reacted(3, None, "a", "click"),
    reacted(4, "other", "c", "click"),
]


def table(rows: list[Row]) -> pa.Table:
    return rows_of(pa.Table.from_pylist(rows, schema=_loose()), COLUMNS)


def _loose() -> pa.Schema:
    times = pa.field("time", pa.int64())
    return pa.schema([times if field.name == "time" else field for field in COLUMNS])


@pytest.fixture
def lists() -> LoggedLists:
    return lists_of(table(ROWS), ["A"])


def codes(lists: LoggedLists, *rows: str) -> np.ndarray:
    """Targets of one-letter items; - is none, and ? an item that the log lacks."""
    known = {name: row for row, name in enumerate(lists.items.to_pylist())}
    return np.array([[{**known, "-": -1, "?": len(known)}[item] for item in row] for row in rows])


def test_lists_and_what_followed(lists: LoggedLists) -> None:
    assert len(lists) == 3 and lists.k == 2
    assert lists.shown.tolist() == codes(lists, "ab", "ba", "a-").tolist()
    assert lists.users.take(pa.array(lists.of_user)).to_pylist() == [1, 2, 3]
    assert lists.propensities.tolist() == [[0.5, 0.25], [0.5, 0.5], [0.8, 1.0]]
    assert lists.rewards["clicks"].tolist() == [[0, 1], [0, 0], [0, 0]]
    assert lists.rewards["GMV"].tolist() == [[0, 10], [2, 0], [0, 0]]
    assert lists.elsewhere == 2 and lists.unpriced == 0, "those of arm B's list are B's"
    assert len(lists_of(table(ROWS))) == 4


def test_weights_by_what_is_assumed(lists: LoggedLists) -> None:
    """Of x only the second place agrees, of y both, of z the first, where the target has one more.

    Chances given the prefix are half of those at the place, and 1 where nothing is shown.
    """
    target = codes(lists, "bb", "ba", "ac")
    assert weights_of(lists, target, "place").tolist() == [[0, 4], [2, 2], [1.25, 0]]
    assert weights_of(lists, target, "cascade").tolist() == [[0, 0], [4, 16], [2.5, 0]]
    assert weights_of(lists, target, "list").tolist() == [[0, 0], [16, 16], [0, 0]]
    ended = codes(lists, "ab", "ba", "a-")
    assert weights_of(lists, ended, "place")[2].tolist() == [1.25, 1]


def test_support(lists: LoggedLists) -> None:
    """Six places are asked for. Weights sum to 4 + 2 + 2 + 1.25; z's second is a - for sure."""
    target = codes(lists, "bb", "ba", "a?")
    support = Support.of(lists, target, weights_of(lists, target, "place"), 3.0)
    assert support.agreeing == pytest.approx(4 / 6)
    assert support.unsupported == 0  # the mean weight is above 1
    assert support.surely_not == pytest.approx(1 / 6) and support.unseen == pytest.approx(1 / 6)
    assert support.effective == pytest.approx([3.25**2 / (4 + 1.5625), 36 / 20])
    assert support.thinnest == 1 and support.largest == 4 and support.clipped == 1
    told = " ".join(support.warnings(1000))
    assert "at place 2" in told and "effective sample of 1.8 of 1,000" in told
    assert "17% of the target's places hold items that the log never shows" in told
    assert "1 weights were cut" in told
    poor = Support.of(lists, target, weights_of(lists, target, "place") / 4, None)
    assert poor.unsupported == pytest.approx(1 - 9.25 / 24)
    assert "about 61% of the target's items had no chance" in " ".join(poor.warnings(2))


def test_values_by_hand(lists: LoggedLists) -> None:
    target = codes(lists, "bb", "ba", "ac")
    value = value_of(lists, target)
    clicks, money = value.estimates["clicks"], value.estimates["GMV"]
    assert clicks[LOGGED].value == pytest.approx(1 / 3)
    assert money[LOGGED].value == pytest.approx(12 / 3)
    assert clicks[IPS].value == pytest.approx(4 / 3)
    assert money[IPS].value == pytest.approx((4 * 10 + 2 * 2) / 3)
    assert money[SNIPS].value == pytest.approx(2 * 2 / 3.25 + 4 * 10 / 6)
    assert money[DIFFERENCE].value == pytest.approx(money[DR].value - 4)
    assert value.lists == 3 and value.users == 3
    assert any("2 clicks and purchases name no list" in each for each in value.warnings)
    cut = value_of(lists, target, clip=3.0)
    assert cut.estimates["clicks"][IPS].value == pytest.approx(3 / 3)
    assert value.table().num_rows == 10


def test_a_policy_that_is_the_logged_one_is_worth_what_it_was(lists: LoggedLists) -> None:
    """Where nothing is left to chance every estimator says so."""
    sure = lists_of(table(_sure()))
    value = value_of(sure, sure.shown)
    for by_name in value.estimates.values():
        assert {round(by_name[n].value, 9) for n in (LOGGED, IPS, SNIPS, DR)} == {
            round(by_name[LOGGED].value, 9)
        }
        assert by_name[DIFFERENCE].value == pytest.approx(0)
    assert value.users_per_arm["clicks"] is None or value.users_per_arm["clicks"] > 1e9


def _sure() -> list[Row]:
    rows = [row for row in ROWS if row["event_type"] == "exposure"]
    rows = [{**row, "propensity": 1.0, "given_prefix": 1.0} for row in rows]
    return [*rows, *(row for row in ROWS if row["event_type"] != "exposure")]


def test_the_model_knows_places_and_items() -> None:
    """Clicks of 20,000 lists at rates of place x item x rank; an item that was never shown has
    lift 1, as the item of lift 1 and rank 0 is clicked at .3 x 1.3 and .15 x 1.3."""
    random = np.random.default_rng(0)
    rates, lifts, of_ranks = np.array([0.3, 0.15]), np.array([0.5, 1, 1.5]), np.array([1.3, 1, 0.7])
    items = np.argsort(random.random((20_000, 3)), axis=1)[:, :2]
    target = np.argsort(random.random((20_000, 3)), axis=1)[:, :2]
    ranks = ranks_in(target, items)
    assert ranks[:1].tolist() == [[[*target[0], item].index(item) for item in items[0]]]
    chances = rates * lifts[items] * of_ranks[ranks]
    model = RewardModel.fit(items, ranks, (random.random(items.shape) < chances).astype(float), 3)
    asked = np.array([[0, 1], [2, 0], [3, -1]])
    expected = [[0.195, 0.15], [0.585, 0.075], [0.39, 0.0]]
    own_ranks = np.array([[0, 1]] * 3)
    assert model.predict(asked, own_ranks) == pytest.approx(np.array(expected), abs=0.03)


def test_a_user_has_no_part_in_the_own_model(lists: LoggedLists) -> None:
    """Whatever the user of a list does, what is expected of that user stays as it was."""
    target = codes(lists, "bb", "ba", "ac")
    rewards = lists.rewards["clicks"]
    before = cross_fitted(lists, rewards, target)
    for row in range(len(lists)):
        changed = rewards.copy()
        changed[row] += 1
        after = cross_fitted(lists, changed, target)
        assert all((a[row] == b[row]).all() for a, b in zip(after, before, strict=True))
        assert any((a != b).any() for a, b in zip(after, before, strict=True))


def test_a_model_of_no_rewards_expects_none() -> None:
    ranks = np.array([[0, 1]])
    model = RewardModel.fit(np.array([[0, 1]]), ranks, np.zeros((1, 2)), 2)
    assert model.predict(np.array([[1, 2]]), ranks).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([reacted(1, "x", "a", "click")], "shows no lists"),
        ([{**ROWS[0], "propensity": 0.0}], "list x has the propensity 0.0: it must be above 0"),
        ([{**ROWS[0], "propensity": None}], "list x has the propensity None"),
        ([{**ROWS[0], "place": 0}], "list x has the place 0: it must be at least 1"),
        ([{**ROWS[0], "list_id": None}], "list None has the list_id None: it is missing"),
        ([ROWS[0], {**ROWS[0], "item": "b"}], "list x has several items at place 1"),
        ([ROWS[0], {**ROWS[1], "user": 2}], "list x has several users"),
    ],
)
def test_what_contradicts_itself_is_refused(rows: list[Row], message: str) -> None:
    with pytest.raises(DataError, match=message):
        lists_of(table(rows))


def test_what_cannot_be_valued_is_refused(lists: LoggedLists) -> None:
    with pytest.raises(DataError, match="no list of the log is of arm 'C'; its arms: A, B"):
        lists_of(table(ROWS), ["C"])
    with pytest.raises(DataError, match="says nothing about that policy"):
        value_of(lists, codes(lists, "cc", "cc", "cc"))
    with pytest.raises(DataError, match="clip is 0"):
        value_of(lists, lists.shown, clip=0)
    with pytest.raises(DataError, match="at least two users"):
        value_of(one_user := lists_of(table(ROWS[:2])), one_user.shown)
    old = table([{**row, "given_prefix": None} for row in ROWS])
    with pytest.raises(DataError, match="no column 'given_prefix'"):
        value_of(without := lists_of(old), without.shown, assumption="cascade")


def test_files_are_read_together(tmp_path: Path, lists: LoggedLists) -> None:
    whole = table(ROWS)
    pq.write_table(whole.slice(0, 3), tmp_path / "a.parquet")
    pq.write_table(whole.slice(3), tmp_path / "b.parquet")
    again = read_lists(str(tmp_path), ["A"])
    assert again.shown.tolist() == lists.shown.tolist()
    pq.write_table(whole.drop_columns(["propensity"]), tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"c\.parquet is no log of exposures: no column 'propens"):
        read_lists(str(tmp_path))
