"""What a server answers: what the bundle answers without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import torch
from asked import Asking, serving

from feature_store.errors import DataError
from recsys.serving.recommender import Recommender
from recsys.serving.scorer import Scorer
from recsys.serving.users import KnownUsers


@pytest.fixture(scope="module")
def recommender(folder: Path) -> Recommender:
    return Recommender.open(folder)


def items(answer: dict[str, Any]) -> list[tuple[Any, float]]:
    assert "error" not in answer
    return [(item["item"], pytest.approx(item["score"], abs=1e-5)) for item in answer["items"]]


def expected(frame: pd.DataFrame) -> list[tuple[Any, float]]:
    return list(zip(frame["item"], frame["score"], strict=True))


def test_a_known_user_and_a_history_are_answered_as_by_the_bundle(
    asking: Asking, recommender: Recommender
) -> None:
    by_user = asking.post("/recommend", {"user": 1007, "k": 4})
    assert by_user.status_code == 200, by_user.text
    (answer,) = by_user.json()["answers"]
    assert answer["user"] == 1007 and answer["fallback"] is False
    assert answer["bundle"] == asking.service.swap.live.version
    wanted = recommender.recommend([1007], k=4)
    assert items(answer) == expected(wanted)
    assert [item["title"] for item in answer["items"]] == wanted["title"].tolist()
    history = ["i00", "i07", "i14"]
    (answer,) = asking.post("/recommend", {"history": history, "k": 3}).json()["answers"]
    wanted = recommender.recommend(requests=pd.DataFrame({"history": [history]}), k=3)
    assert items(answer) == expected(wanted) and "user" not in answer


def test_options_are_those_of_the_bundle(asking: Asking, recommender: Recommender) -> None:
    requests = pd.DataFrame({"history": [["i00", "i07"]]})
    seen = asking.post("/recommend", {"history": ["i00", "i07"], "include_seen": True, "k": 100})
    wanted = recommender.recommend(requests=requests, k=100, exclude_seen=False)
    assert items(seen.json()["answers"][0]) == expected(wanted)


@pytest.mark.parametrize(
    ("filters", "same"),
    [
        ({"exclude": ["i00", "i01", "nothing"]}, {"forbidden": ["i00", "i01", "nothing"]}),
        ({"allowed": ["i02", "i05", "i09"]}, {"allowed": ["i02", "i05", "i09"]}),
        ({"where": "title is not None"}, {"where": "title is not None"}),
        ({"allowed": []}, {"allowed": []}),
    ],
)
def test_filters_are_those_of_the_bundle(
    asking: Asking, recommender: Recommender, filters: dict[str, Any], same: dict[str, Any]
) -> None:
    (answer,) = asking.post("/recommend", {"user": 1007, "k": 30, **filters}).json()["answers"]
    wanted = recommender.recommend([1007], k=30, **same)
    assert items(answer) == expected(wanted)
    assert [item["origin"] for item in answer["items"]] == wanted["origin"].tolist()


def test_a_filter_that_cannot_be_read_is_refused_in_a_line(asking: Asking) -> None:
    for filters, message in (
        ({"where": "price <"}, "price"),
        ({"where": "shoes == 3"}, "the catalogue has no column 'shoes'"),
    ):
        answer = asking.post("/recommend", {"user": 1007, **filters})
        assert answer.status_code == 422 and message in answer.json()["error"], answer.text
        assert "\n" not in answer.json()["error"]


def test_who_is_unknown_gets_the_fallback(asking: Asking, recommender: Recommender) -> None:
    before = asking.figure("recsys_fallbacks_total")
    (answer,) = asking.post("/recommend", {"user": 7, "k": 3}).json()["answers"]
    assert answer["fallback"] and answer["user"] == 7
    assert items(answer) == expected(recommender.recommend([7], k=3))
    assert asking.figure("recsys_fallbacks_total") == before + 1


def test_several_questions_are_answered_in_their_order_and_a_bad_one_alone_fails(
    asking: Asking, recommender: Recommender
) -> None:
    questions = [
        {"history": ["i07"]},
        {"user": "nobody"},
        {"user": 1002},
        {"user": 1003, "features": {"age": "old"}},
        {"history": ["i14"], "features": {"shoes": 4}},
        {"user": "1004"},
        {"user": 10**30},
    ]
    answers = asking.post("/recommend", {"requests": questions, "k": 2}).json()["answers"]
    assert [len(answer["items"]) for answer in answers] == [2, 0, 2, 2, 0, 2, 2]
    assert answers[1]["error"] == "user: 'nobody' is not an integer, as the ids of this log are"
    assert answers[4]["error"].startswith("features.shoes: no feature that is read; there are: ")
    assert answers[6]["fallback"] and answers[6]["user"] == 10**30
    assert items(answers[2]) == expected(recommender.recommend([1002], k=2))
    assert items(answers[5]) == expected(recommender.recommend([1004], k=2))
    alone = asking.post("/recommend", {"user": "nobody"})
    assert alone.status_code == 422 and alone.json()["error"] == answers[1]["error"]


def test_items_near_others_by_the_cosine_of_their_vectors(
    asking: Asking, recommender: Recommender
) -> None:
    answers = asking.post("/similar", {"items": ["i03", "nothing", "i05"], "k": 3}).json()
    first, second, third = answers["answers"]
    assert second["error"] == "items: no item 'nothing' among those that can be found"
    units = torch.nn.functional.normalize(recommender.generator.items, dim=1)
    ids = recommender.finder.item_ids.to_pylist()
    for answer in (first, third):
        place = ids.index(answer["item"])
        cosines = units @ units[place]
        cosines[place] = -2
        best = cosines.topk(3)
        assert items(answer) == [
            (ids[near], pytest.approx(score, abs=1e-5))
            for near, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
    unknown = asking.post("/similar", {"items": ["nothing"]})
    assert unknown.status_code == 422 and unknown.json()["error"] == second["error"]


def test_items_are_scored_for_a_user(asking: Asking, folder: Path) -> None:
    scored = asking.post("/score", {"user": 1001, "items": ["i03", "i05", "i03"]}).json()
    frame = pd.DataFrame({"user_id": [1001] * 3, "item_id": ["i03", "i05", "i03"]})
    wanted = Scorer.open(folder).score(frame)["probability"]
    assert [item["item"] for item in scored["items"]] == ["i03", "i05", "i03"]
    told = [item["probability"] for item in scored["items"]]
    assert told == pytest.approx(wanted.tolist(), abs=1e-5)
    for wrong, message in (
        ({"part": "third"}, "has no ranker called 'third'"),
        ({"task": "sleep"}, "has no task 'sleep'"),
    ):
        answer = asking.post("/score", {"user": 1001, "items": ["i03"], **wrong})
        assert answer.status_code == 422 and message in answer.json()["error"]


def test_a_bundle_without_a_ranker_says_so(other: Path) -> None:
    with serving(other) as asking:
        answer = asking.post("/score", {"user": 1001, "items": ["i03"]})
    assert answer.status_code == 422 and "has no ranker; its parts: generator" in answer.text


def test_what_watches_the_process(asking: Asking) -> None:
    assert asking.get("/healthz").json() == {"status": "ok"}
    ready = asking.get("/readyz").json()
    assert ready["status"] == "ready" and ready["bundle"] == asking.service.swap.live.version
    asking.post("/recommend", {"user": 1001})
    text = asking.get("/metrics").text
    for name in (
        'recsys_requests_total{path="/recommend",status="200"}',
        'recsys_request_seconds_count{path="/recommend"}',
        'recsys_batch_size_count{path="/recommend"}',
        f'recsys_bundle{{arm="",version="{ready["bundle"]}"}} 1.0',
        "recsys_fallbacks_total",
    ):
        assert name in text


def test_other_paths_and_methods(asking: Asking) -> None:
    assert asking.get("/nothing").json() == {"error": "Not Found"}
    wrong = asking.get("/recommend")
    assert wrong.status_code == 405 and wrong.json() == {"error": "Method Not Allowed"}
    assert asking.figure('recsys_requests_total{path="other",status="404"}') >= 1


class Store:
    """A store of users that remembers what it was given, and refuses users below 1."""

    def __init__(self, file: KnownUsers) -> None:
        self._file, self.tables = file, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def append(self, events: pa.Table) -> int:
        if 0 in events["user_id"].to_pylist():
            raise DataError("row 0: no such user")
        self.tables.append(events)
        return events.num_rows - 1


def test_events_go_to_the_store_that_answers_are_made_from(
    folder: Path, recommender: Recommender
) -> None:
    store = Store(recommender.bundle.users)
    when = "2026-11-30T12:00:00Z"
    with serving(folder, users=store) as asking:
        event = {"user": 7, "item": "i03", "time": when, "event_type": "click"}
        added = asking.post("/events", {"events": [event, {**event, "user": "8"}]})
        assert added.json() == {"received": 2, "new": 1}
        (table,) = store.tables
        assert table["user_id"].to_pylist() == ["7", "8"]  # of one type, which a log reads
        assert table["item_id"].to_pylist() == ["i03"] * 2
        refused = asking.post("/events", {"events": [{**event, "user": 0}]})
        assert refused.status_code == 422 and refused.json()["error"] == "row 0: no such user"
        assert asking.figure('recsys_events_total{kind="new"}') == 1
        assert asking.figure('recsys_events_total{kind="other"}') == 1


def test_a_server_without_a_store_takes_no_events(asking: Asking) -> None:
    answer = asking.post("/events", {"events": [{"user": 7}]})
    assert answer.status_code == 404 and "start it with --users" in answer.json()["error"]
