"""What is shown: explored, written down with its probability, and by arms."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asked import serving

from feature_store.errors import ConfigError
from recsys.policy.arms import arm_of
from recsys.policy.exploration import Exploration
from recsys.serving.recommender import Recommender

EVEN = Exploration(share=0.5, keep=1, pool=4)


def written(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("*.parquet")
    return pq.read_table(path).to_pylist()


def test_what_is_shown_is_drawn_and_written_down_as_probable_as_it_was(
    folder: Path, tmp_path: Path
) -> None:
    """Of four candidates the first stays, and half of the lists draw the second place evenly from
    the other three: that is the best one with .5 + .5 / 3, each other one with .5 / 3."""
    best = Recommender.open(folder).recommend([1007], k=4)["item"].tolist()
    with serving(folder, explore=EVEN, exposures=tmp_path, max_batch=256) as asking:
        asked = [{"user": 1007}] * 100 + [{"user": 7}, {"history": ["i00"]}, {"user": "nobody"}]
        answer = asking.post("/recommend", {"requests": asked, "k": 2})
        *of_user, fallback, nobody, bad = answer.json()["answers"]
        click = {"user": 1007, "item": best[0], "time": "2026-11-30T12:00:00Z"}
        more = {"event_type": "click", "list_id": of_user[0]["list_id"], "shoe_size": 4}
        assert asking.post("/events", {"events": [{**click, **more}]}).json()["new"] == 1
    lists = [[item["item"] for item in told["items"]] for told in of_user]
    assert {shown[0] for shown in lists} == {best[0]}
    seconds = Counter(shown[1] for shown in lists)
    assert set(seconds) == set(best[1:]) and 50 < seconds[best[1]] < 85  # 67 on average
    rows = written(tmp_path)
    by_list = {told["list_id"]: told for told in (*of_user, fallback)}
    assert {row["list_id"] for row in rows} == set(by_list) and "error" in bad
    assert "list_id" in nobody and nobody["list_id"] not in by_list  # of nobody nothing is written
    exposures = [row for row in rows if row["event_type"] == "exposure"]
    assert len(exposures) == 2 * len(by_list)
    for row in exposures:
        told = by_list[row["list_id"]]
        shown = told["items"][row["place"] - 1]["item"]
        assert row["item"] == shown and row["user"] == told["user"]
        assert row["bundle"] == told["bundle"]
        expected = 1.0
        if row["place"] == 2 and not told["fallback"]:
            expected = 0.5 / 3 + 0.5 * (shown == best[1])
        assert row["propensity"] == pytest.approx(expected)
    (clicked,) = [row for row in rows if row["event_type"] == "click"]
    assert clicked["list_id"] == of_user[0]["list_id"] and clicked["item"] == best[0]


def test_a_list_is_not_longer_than_what_it_is_drawn_from(folder: Path, tmp_path: Path) -> None:
    with serving(folder, explore=EVEN, exposures=tmp_path) as asking:
        answer = asking.post("/recommend", {"user": 1007, "k": 5})
    assert answer.status_code == 422 and "5 places cannot be filled" in answer.json()["error"]


def test_who_explores_writes_it_down(folder: Path) -> None:
    with pytest.raises(ConfigError, match="must write down"), serving(folder, explore=EVEN):
        pass


def test_users_are_divided_into_arms(folder: Path, other: Path, tmp_path: Path) -> None:
    users = list(range(1001, 1041))
    options: dict[str, Any] = {"arms": {"other": (0.5, other)}, "salt": "a", "exposures": tmp_path}
    with serving(folder, **options) as asking:
        body = {"requests": [{"user": user} for user in users] + [{"history": ["i00"]}], "k": 3}
        *answers, nobody = asking.post("/recommend", body).json()["answers"]
        ready = asking.get("/readyz").json()
        assert set(ready["arms"]) == {"main", "other"}
        assert asking.figure(f'recsys_bundle{{arm="other",version="{ready["arms"]["other"]}"}}')
    wanted = arm_of(pa.array(users), {"main": 0.5, "other": 0.5}, "a").tolist()
    assert [answer["arm"] for answer in answers] == wanted and set(wanted) == {"main", "other"}
    by_arm = {"main": Recommender.open(folder), "other": Recommender.open(other)}
    for user, answer in zip(users, answers, strict=True):
        assert answer["bundle"] == ready["arms"][answer["arm"]]
        expected = by_arm[answer["arm"]].recommend([user], k=3)["item"].tolist()
        assert [item["item"] for item in answer["items"]] == expected
    assert nobody["arm"] == "main"
    assert {(row["user"], row["arm"]) for row in written(tmp_path)} == set(
        zip(users, wanted, strict=True)
    )


def test_shares_of_arms_leave_something(folder: Path) -> None:
    with pytest.raises(ConfigError, match="share"), serving(folder, arms={"b": (1.5, folder)}):
        pass
