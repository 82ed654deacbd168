"""How much of the test could be found at all, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recsys.evaluation.ceiling import ceiling, sentences

CANDIDATES = np.array([1, 2, 3, 4])
# Item 9 was never had before the test; the second user has had 2, the third nothing at all.
USERS: list[tuple[list[int], list[int], list[float]]] = [
    ([1], [2, 9], [10.0, 5.0]),
    ([2, 3, 2], [2, 4], [20.0, 40.0]),
    ([], [1], [8.0]),
    ([4], [4], [17.0]),
    ([1], [9], [0.0]),
]


def batches(*, money: bool = True) -> list[pa.RecordBatch]:
    """Two batches of requests."""
    lists = list(zip(*USERS, strict=True))
    columns = {
        "history": pa.array(lists[0], pa.list_(pa.int64())),
        "target": pa.array(lists[1], pa.list_(pa.int64())),
    }
    if money:
        worth = [[round(value * 1e6) for value in values] for values in lists[2]]
        columns["target_value"] = pa.array(worth, pa.list_(pa.int64()))
    whole = pa.record_batch(columns)
    return [whole.slice(0, 2), whole.slice(2)]


def test_every_target_is_findable_or_lost_for_one_reason() -> None:
    found = ceiling(batches(), CANDIDATES, exclude_seen=True, leave_out_cold=True)
    assert found == {
        "users": 5,
        "judged": 3,  # the third has no history, the fourth no target that is new
        "repeated": 2,
        "targets": {"all": 7, "findable": 2, "without_history": 1, "seen": 2, "no_candidate": 2},
        "money": {
            "all": 100.0,
            "findable": 50.0,
            "without_history": 8.0,
            "seen": 37.0,
            "no_candidate": 5.0,
        },
    }
    results = {
        "data": {"users": 40},
        "protocol_parts": {"split.seen": "exclude"},
        "ceiling": found,
    }
    assert sentences({}) == [] and sentences(results) == [
        "3 users were judged, of 5 with test events and 40 in the log.",
        "28.6% of 7 targets could be found at all, 50.0% of their money; 28.6% are of items "
        "without an earlier event; 28.6% were had before, and are left out; 14.3% are of users "
        "without a history, who are left out.",
        "People come back to items here: 28.6% of the targets were had before. split.seen = "
        "'exclude' leaves them out, and asks what new items people take; 'include' asks what they "
        "take next, with personal_popularity as the baseline to beat.",
    ]


@pytest.mark.parametrize(
    ("options", "findable", "judged"),
    [
        ({"exclude_seen": False, "leave_out_cold": True}, 4, 4),
        ({"exclude_seen": True, "leave_out_cold": False}, 3, 4),
        ({"exclude_seen": False, "leave_out_cold": False}, 5, 5),
    ],
)
def test_the_protocol_decides_what_is_lost(
    options: dict[str, Any], findable: int, judged: int
) -> None:
    found = ceiling(batches(money=False), CANDIDATES, **options)
    assert (found["targets"]["findable"], found["judged"]) == (findable, judged)
    assert found["repeated"] == 2 and "money" not in found


@pytest.mark.parametrize(
    ("millionths", "told"), [([0], False), ([-3_000_000], False), ([200_000, 300_000], True)]
)
def test_shares_of_money_are_told_where_there_is_any_to_be_had(
    millionths: list[int], told: bool
) -> None:
    """Not where returns are more than sales."""
    targets = [2, 3][: len(millionths)]
    lists = {"history": [[1]], "target": [targets], "target_value": [millionths]}
    numbers = pa.list_(pa.int64())
    batch = pa.record_batch({name: pa.array(of, numbers) for name, of in lists.items()})
    found = ceiling([batch], CANDIDATES, exclude_seen=True, leave_out_cold=True)
    assert found["targets"]["findable"] == len(targets)
    assert ("money" in found) == told
    if told:
        assert found["money"]["findable"] == 0.5


@pytest.mark.parametrize(("repeated", "come_back"), [(4, False), (5, True)])
@pytest.mark.parametrize("seen", ["exclude", "include"])
def test_people_come_back_where_a_twentieth_of_the_targets_was_had_before(
    repeated: int, come_back: bool, seen: str
) -> None:
    parts = {"all": 100, "findable": 100, "without_history": 0, "seen": 0, "no_candidate": 0}
    counted = {"users": 60, "judged": 50, "repeated": repeated, "targets": parts}
    protocol = {"split.seen": seen}
    told = sentences({"data": {"users": 70}, "protocol_parts": protocol, "ceiling": counted})
    assert told[1] == "100.0% of 100 targets could be found at all."
    assert (len(told) == 3) == come_back
    if come_back:
        assert ("leaves them out" in told[2]) == (seen == "exclude")
