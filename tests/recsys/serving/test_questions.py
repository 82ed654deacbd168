"""What a bundle is asked: who is known, what is passed over, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from served import Served, ask

from conformance import bundle_of, learn, small
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from planted import UNSOLD, Shape
from recsys.data.examples import Examples, Interactions
from recsys.distributed import join
from recsys.export.fallback import popular_lately
from recsys.serving.recommender import Recommender


def test_known_users_are_asked_by_id(sasrec: Served) -> None:
    users = sasrec.recommender.users()
    assert len(users) == 120 and users[:2] == [1001, 1002]
    found = sasrec.recommender.recommend([1007, 1002, 1007], k=3)
    assert found["user"].tolist() == [1007] * 3 + [1002] * 3 + [1007] * 3
    assert found["rank"].tolist() == [1, 2, 3] * 3
    assert found["item"][:3].tolist() == found["item"][6:].tolist()
    newest = pd.read_feather(sasrec.bundle / "users.arrow").set_index("user_id")
    by_request = ask(sasrec, history=[newest.history[1007].tolist()])
    assert by_request["item"][:3].tolist() == found["item"][:3].tolist()


def test_unknown_users_are_named(sasrec: Served) -> None:
    with pytest.raises(DataError, match="unknown users: 7, 8; pass requests"):
        sasrec.recommender.recommend([1001, 7, 8], strict=True)
    with pytest.raises(DataError, match="users must be of type int64"):
        sasrec.recommender.recommend(["someone"])


def test_unknown_items_of_a_history_are_passed_over(sasrec: Served) -> None:
    plain = ask(sasrec, history=[["i00", "i07", "i14"]])
    mixed = ask(sasrec, history=[["new", "i00", "i07", None, "newer", "i14", "newest"]])
    pd.testing.assert_frame_equal(plain, mixed)


def test_what_nothing_is_known_of_gets_the_fallback_and_the_others_their_answers(
    sasrec: Served,
) -> None:
    """The fallback is what sold most, counted here by hand from the training events."""
    histories = [["i00", "i07"], [], ["i14"], ["new"], None]
    mixed = ask(sasrec, history=histories)
    assert mixed.groupby("request")["fallback"].all().tolist() == [False, True, False, True, True]
    known = ask(sasrec, history=[histories[0], histories[2]])
    columns = ["rank", "item", "score", "title"]
    pd.testing.assert_frame_equal(
        mixed.loc[~mixed["fallback"], columns].reset_index(drop=True), known[columns]
    )
    examples = sasrec.examples
    rows = pd.Series(examples.interactions().items.numpy())
    counts = rows.value_counts().rename_axis("row").reset_index()  # all within 30 days
    best = counts.sort_values(["count", "row"], ascending=[False, True]).head(5)
    items = examples.vocabulary(examples.schema.item).decode(best["row"].to_numpy())
    for _, listed in mixed[mixed["fallback"]].groupby("request"):
        assert listed["item"].tolist() == items.to_pylist()
        assert listed["score"].tolist() == best["count"].tolist()
    by_id = sasrec.recommender.recommend([7, 1002], k=5)
    assert by_id["user"].tolist() == [7] * 5 + [1002] * 5
    assert by_id["fallback"].tolist() == [True] * 5 + [False] * 5
    assert by_id["item"].tolist()[:5] == items.to_pylist()
    with pytest.raises(DataError, match=r"request 1 has no known item .* fallback"):
        sasrec.recommender.recommend(requests=pd.DataFrame({"history": histories}), strict=True)


def test_a_model_that_needs_no_history_answers_by_itself(
    planted: dict[Shape, Examples], planted_log: EventLog, tmp_path: Path
) -> None:
    with join("cpu") as group:
        popularity = learn(small("popularity"), planted["sequences"], tmp_path, group)
    recommender = bundle_of(popularity, planted["sequences"], planted_log, tmp_path / "bundle")
    assert recommender.generator.record.fallback is None
    found = recommender.recommend([7, 1002], k=3, strict=False)
    assert found["user"].tolist() == [7] * 3 + [1002] * 3 and not found["fallback"].any()


def test_the_fallback_counts_the_last_days_first(planted: dict[Shape, Examples]) -> None:
    """Of items 1 to 4 the third sold last month, and of the others the second most ever."""
    day = 86_400
    sold = [(1, 0), (2, 1), (2, 2), (2, 3), (3, 90), (4, 95), (4, 99), (3, 100), (3, 100)]
    events = Interactions(
        torch.zeros(len(sold)),
        torch.tensor([item for item, _ in sold]),
        torch.tensor([when * day for _, when in sold]),
    )

    class Sold(Examples):
        num_items = 6

        def interactions(self) -> Interactions:
            return events

    record, popular = popular_lately(
        Sold(planted["sequences"].folder), torch.tensor([1, 2, 3, 4, 5])
    )
    assert (record.model, record.days) == ("recent_popularity", 30)
    assert popular.ids.tolist() == [[3, 4, 2, 1, 5]]
    assert popular.scores.tolist() == [[3, 2, 0, 0, 0]]


def test_a_long_history_is_cut_for_reading_but_not_for_what_was_seen(sasrec: Served) -> None:
    """`max_length` is 8: only the last 8 are read."""
    ring = [f"i{7 * place % 40:02d}" for place in range(24)]
    short = sasrec.recommender.recommend(requests=pd.DataFrame({"history": [ring[-8:]]}), k=40)
    long = sasrec.recommender.recommend(requests=pd.DataFrame({"history": [ring]}), k=40)
    left = short[~short["item"].isin(ring)]
    assert long["item"].tolist() == left["item"].tolist()
    np.testing.assert_allclose(long["score"], left["score"], atol=1e-6)
    assert len(short) == 32 and len(long) == 16
    everything = sasrec.recommender.recommend(
        requests=pd.DataFrame({"history": [ring]}), k=100, exclude_seen=False
    )
    assert len(everything) == 40 and set(ring) <= set(everything["item"])


def test_items_that_never_sold_are_not_recommended(sasrec: Served) -> None:
    everything = sasrec.recommender.recommend([1001], k=100, exclude_seen=False)
    assert not {f"i{40 + place}" for place in range(UNSOLD)} & set(everything["item"])


def test_titles_come_from_the_catalogue(sasrec: Served) -> None:
    found = sasrec.recommender.recommend([1001, 1002], k=40).drop_duplicates("item")
    titles = found.set_index("item")["title"]
    assert titles["i05"] == "Item number 5" and titles["i03"] == ""


@pytest.mark.parametrize("kind", ["pandas", "arrow", "large lists"])
def test_requests_may_be_frames_or_tables(sasrec: Served, kind: str) -> None:
    frame = pd.DataFrame({"user_id": [3, 4], "history": [["i07"], ["i14", "i21"]]})
    table: Any = pa.Table.from_pandas(frame)
    if kind == "large lists":
        table = table.set_column(1, "history", table["history"].cast(pa.large_list(pa.string())))
    found = sasrec.recommender.recommend(requests=frame if kind == "pandas" else table, k=2)
    assert found.columns.tolist() == [
        "user",
        "rank",
        "item",
        "score",
        "title",
        "origin",
        "fallback",
    ]
    assert found["user"].tolist() == [3, 3, 4, 4]
    expected = sasrec.recommender.recommend(requests=frame, k=2)
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"users": [1001], "k": 0}, "k must be at least 1, not 0"),
        ({}, "give either users or requests"),
        ({"users": [1001], "requests": pd.DataFrame({"history": [["i00"]]})}, "give either"),
        ({"users": []}, "no requests"),
        ({"requests": pd.DataFrame({"history": []})}, "no requests"),
        ({"requests": pd.DataFrame({"items": [["i00"]]})}, "column 'history' .* have: items"),
        ({"requests": pd.DataFrame({"history": ["i00"]})}, "'history' must hold lists"),
        ({"requests": pd.DataFrame({"history": [["i00"], [["i07"]]]})}, "requests cannot be read"),
        ({"requests": pd.DataFrame({"history": [[["i07"]]]})}, "history"),
    ],
)
def test_questions_that_cannot_be_answered(
    sasrec: Served, question: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        sasrec.recommender.recommend(**question)
    assert "\n" not in str(caught.value)


def test_features_that_are_absent_are_unknown(two_tower: Served) -> None:
    """Left out, null and never seen are one and the same."""
    history = [["i07", "i14"]]
    plain = ask(two_tower, history=history)
    nothing = ask(
        two_tower, history=history, club=[None], age=[None], favourites=[None], badges=[[]]
    )
    unseen = ask(
        two_tower, history=history, club=["golf"], age=[np.nan], favourites=[["x"]], badges=[["z"]]
    )
    pd.testing.assert_frame_equal(plain, nothing)
    pd.testing.assert_frame_equal(plain, unseen)
    known = ask(two_tower, history=history, club=["chess"], age=[44], favourites=[["i00"]])
    assert known["score"].tolist() != plain["score"].tolist()


def test_a_dense_value_that_is_no_number_is_unknown(two_tower: Served) -> None:
    table = pa.table({"history": [["i07"]], "age": pa.array([float("nan")], pa.float32())})
    found = two_tower.recommender.recommend(requests=table, k=5)
    pd.testing.assert_frame_equal(found, ask(two_tower, history=[["i07"]]))


@pytest.mark.parametrize(
    ("column", "value"),
    [("age", "old"), ("age", [1]), ("club", ["chess"]), ("favourites", "i00"), ("badges", [["a"]])],
)
def test_features_of_the_wrong_type_are_named(two_tower: Served, column: str, value: Any) -> None:
    with pytest.raises(DataError, match=column) as caught:
        ask(two_tower, history=[["i07"]], **{column: [value]})
    assert "\n" not in str(caught.value)


def test_a_store_of_users_answers_in_place_of_the_bundles_own(sasrec: Served) -> None:
    """The store is asked, and what it does not know of users is refused when it is opened."""
    own = sasrec.recommender.bundle.users

    class Later:
        """All that is known, as it was at a moment."""

        schema, column_names, users, append = own.schema, own.column_names, own.users, own.append

        def of(self, users: pa.Array, columns: Any = None, *, before: Any = None) -> pa.Table:
            return own.of(users, columns, before=before or moment)

    user = own.users()[0].as_py()
    times = own.of(pa.array([user])).column("history_time")[0].as_py()
    moment = times[len(times) // 2]
    later = Recommender(sasrec.recommender.bundle, users=Later())
    asked = own.of(pa.array([user]), before=moment)
    assert later.requests_of(user).equals(asked)
    expected = sasrec.recommender.recommend(requests=asked)
    assert later.recommend(user).equals(expected)
    lacking = Later()
    lacking.schema, lacking.column_names = own.schema.remove(1), own.column_names[:1]
    with pytest.raises(DataError, match="lacks the column 'history'"):
        Recommender(sasrec.recommender.bundle, users=lacking)
