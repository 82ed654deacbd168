"""Requests that are rows of any values: a bad one is told why, and spoils no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import Served

from feature_store.errors import DataError
from feature_store.vocabulary import Vocabulary
from recsys.inputs import Bag, History, Id, Moment, Number, Times
from recsys.serving.recommender import Recommender
from recsys.serving.row_answers import RowAnswers, answer_rows
from recsys.serving.rows import LONGEST, Rows, read_rows

HISTORY = History("item")
TIMES = Times(HISTORY)
INPUTS = (HISTORY, TIMES, Moment(TIMES), Id("city"), Bag("tags"), Number("age"))
VOCABULARIES = {
    "item": Vocabulary(pa.array([10, 20, 30])),
    "city": Vocabulary(pa.array(["Bern", "Oslo"])),
    "tags": Vocabulary(pa.array(["x", "y"])),
}
GOOD = {
    "who": 7,
    "history": [10, 20],
    "history_time": ["2024-01-30", "1706659200"],
    "time": "2024-02-01",
    "city": "Bern",
    "tags": ["x"],
    "age": 40,
}


class Nobody:
    """A store that knows a single user."""

    column_names = ("who", "history", "city")

    def of(self, users: pa.Array, columns: Any = None) -> pa.Table:
        known = pa.array([user == 7 for user in users.to_pylist()])
        place = pa.array(np.zeros(len(users), dtype=int), mask=~np.array(known))
        rows = {"who": pa.array([7]), "history": pa.array([[30]]), "city": pa.array(["Oslo"])}
        return pa.table({name: column.take(place) for name, column in rows.items()})


def read(*rows: Any) -> Rows:
    return read_rows(rows, INPUTS, VOCABULARIES, Nobody(), pa.field("who", pa.int64()))  # type: ignore[arg-type]


def test_good_rows_become_columns_of_the_logs_types() -> None:
    table, problems = read(GOOD, {"history": ["30", None]}, {"user": "7"}, {"who": 8}, {})
    assert problems == [None] * 5
    assert table.select(["who", "history", "city", "age"]).to_pydict() == {
        "who": [7, None, 7, 8, None],
        "history": [[10, 20], [30, None], [30], None, None],  # that of a known user who brings none
        "city": ["Bern", None, "Oslo", None, None],
        "age": [40.0, None, None, None, None],
    }
    assert table["history_time"].to_pylist()[0] == [1_706_572_800, 1_706_659_200]
    assert table["time"].to_pylist() == [1_706_745_600, None, None, None, None]


BAD: list[tuple[Any, str]] = [
    ({"history": "10"}, "history: string is no list"),
    ({"history": ["ten"]}, "history: 'ten' is not an integer"),
    ({"history": [10, "ten"]}, "history: Could not convert 'ten'"),
    ({"history": [[10]]}, "history: a list holds a list"),
    ({"history": [{"item": 10}]}, "history: a list holds a list or an object"),
    ({"history": {"item": 10}}, "history: struct<item: int64> is no list"),
    ({"history": [1.5]}, "history: 1.5 is not an integer"),
    ({"history": [float("inf")]}, "history: inf is not an integer"),
    ({"history": [10] * (LONGEST + 1)}, "history: 100,001 entries: at most 100,000 are read"),
    ({"history": [10], "history_time": [1, 2]}, "history_time: 2 values for 1 of history"),
    ({"history_time": [1]}, "history_time: 1 values for 0 of history"),
    ({"history": [10], "history_time": ["soon"]}, "history_time: 'soon' is not a time"),
    ({"time": "31.12.24"}, "time: '31.12.24' is not a time"),
    ({"time": 1_706_659_200_000}, "time: 1706659200000 may be milliseconds"),
    ({"time": [1]}, "time: "),
    ({"city": ["Bern"]}, "city: "),
    ({"tags": "x"}, "tags: string is no list"),
    ({"age": "old"}, "age: "),
    ({"age": 1e300}, "age: 1e+300 is too large"),
    ({"age": [40]}, "age: "),
    ({"who": "nobody"}, "who: 'nobody' is not an integer"),
    ([10], "it is no object, but of type list"),
    (None, "it is no object, but of type NoneType"),
    ("{", "it is no object, but of type str"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD, ids=lambda value: str(value)[:30])
def test_a_bad_row_says_why_and_the_others_stay_as_they_are(bad: Any, reason: str) -> None:
    alone = read(GOOD, {"history": [30]})
    table, problems = read(GOOD, bad, {"history": [30]})
    assert problems[0] is None and problems[2] is None
    assert problems[1] is not None and problems[1].startswith(reason), problems[1]
    assert "\n" not in problems[1]
    for name in alone.table.column_names:
        assert table.column(name).take([0, 2]).equals(alone.table.column(name)), name
    nothing = {"history": None, "age": None, "city": None, "tags": None, "time": None}
    assert nothing.items() <= table.slice(1, 1).to_pylist()[0].items()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
KEYS = st.sampled_from([*GOOD, "user", "other"])


@settings(max_examples=100, deadline=None)
@given(strange=st.lists(st.dictionaries(KEYS, JSON, max_size=4) | JSON, max_size=5))
def test_no_row_spoils_another_whatever_it_holds(strange: list[Any]) -> None:
    table, problems = read(*strange, GOOD)
    alone, _ = read(GOOD)
    assert problems[-1] is None and table.num_rows == len(strange) + 1
    assert table.slice(len(strange)).select(alone.column_names).equals(alone)


def ask(served: Served, rows: list[Any], **options: Any) -> RowAnswers:
    return answer_rows(served.recommender, rows, **options)


def test_each_row_is_answered_and_the_bad_one_gets_the_fallback(two_tower: Served) -> None:
    rows: list[Any] = [
        {"user": 1001},
        {"history": ["i00", "i07"], "age": "old"},
        {"history": ["i14"], "club": "chess", "age": 44},
        {"history": ["i14"] * (LONGEST + 1)},
        {"user_id": 5},
        7,
    ]
    table, problems = ask(two_tower, rows, k=3)
    assert [problem is not None for problem in problems] == [False, True, False, True, False, True]
    answers = table.to_pandas()
    assert answers.groupby("request").size().tolist() == [3] * 6
    assert table.column_names[:3] == ["request", "user", "rank"]
    assert table.column_names[-3:] == ["origin", "fallback", "problem"]
    assert answers.groupby("request")["fallback"].all().tolist() == [
        *(False, True, False, True, True, True)
    ]
    said = dict(zip(*table.select(["request", "problem"]).to_pydict().values(), strict=True))
    assert list(said.values()) == problems
    of_user = two_tower.recommender.recommend([1001, 5], k=3)
    assert answers.loc[answers["request"].isin([0, 4]), "item"].tolist() == of_user["item"].tolist()
    frame = pd.DataFrame({"history": [["i14"]], "club": ["chess"], "age": [44]})
    expected = two_tower.recommender.recommend(requests=frame, k=3)
    own = answers[answers["request"] == 2]
    assert own["item"].tolist() == expected["item"].tolist()
    np.testing.assert_allclose(own["score"], expected["score"], atol=1e-6)
    strict, reasons = ask(two_tower, rows, k=3, strict=True)
    assert set(strict["request"].to_pylist()) == {0, 2}
    assert reasons[4] == "nothing is known of its history" and reasons[1] == problems[1]


def test_a_row_that_the_model_fails_of_is_alone_with_its_reason(
    sasrec: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    finder = type(sasrec.recommender.finder)
    whole, asked = finder.find, []

    def find(self: Any, requests: Any, *arguments: Any) -> Any:
        asked.append(len(requests))
        if any("i13" in items for items in requests.column("history").to_pylist()):
            raise DataError("a score is NaN:\nit failed")
        return whole(self, requests, *arguments)

    monkeypatch.setattr(finder, "find", find)
    rows = [{"history": ["i13" if row == 5 else "i00"]} for row in range(16)]
    table, problems = ask(sasrec, rows, k=2)
    assert problems == [None] * 5 + ["a score is NaN: it failed"] + [None] * 10
    assert table.num_rows == 32 and len(asked) == 9  # all, and two halves four times
    fallen = table.filter(table["fallback"]).to_pydict()
    assert fallen["request"] == [5, 5] and fallen["origin"] == ["fallback"] * 2


def test_options_that_cannot_be_meant_are_no_fault_of_a_row(sasrec: Served) -> None:
    for options, message in (({"k": 0}, "k must be"), ({"where": "x"}, "cannot be read")):
        with pytest.raises(DataError, match=message):
            ask(sasrec, [{"user": 1001}], **options)
    with pytest.raises(DataError, match="no requests"):
        ask(sasrec, [])


def test_a_table_with_too_long_a_list_names_the_request(sasrec: Served) -> None:
    table = pa.table({"history": [["i00"], ["i00"] * (LONGEST + 1)]})
    with pytest.raises(DataError, match="request 1 has 100,001 entries in 'history'"):
        sasrec.recommender.recommend_table(table)


def test_a_bundle_without_a_fallback_gives_bad_rows_nothing(sasrec: Served) -> None:
    old = Recommender(sasrec.recommender.bundle)
    old.finder = type(old.finder)(**{**vars(old.finder), "fallback": None})
    table, problems = answer_rows(old, [{"history": 3}, {"history": ["i00"]}], k=2)
    assert table["request"].to_pylist() == [1, 1]
    assert problems[0] is not None and "is no list" in problems[0] and problems[1] is None
