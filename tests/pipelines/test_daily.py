"""Days that follow one another, from the log to the bundle in service."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from feature_store.errors import ConfigError
from feature_store.event_log import EventLog
from feature_store.vocabulary import Vocabulary
from pipelines.daily import daily
from pipelines.run import resolve
from recsys.runs.days import Days
from recsys.serving.recommender import Recommender
from recsys.serving.releases import Releases

Tree = dict[str, Any]
Ask = Callable[..., tuple[Any, str, str]]


@pytest.fixture(scope="module")
def tree(tree_of: Callable[..., Tree], tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = tree_of(
        tmp_path_factory.mktemp("days"),
        name="shop",
        split={
            "protocol": "global_time",
            "event_types": ["click", "purchase"],
            "validation_days": 1,
            "test_days": 1,
        },
        baselines=["popularity"],
        daily={"max_fall": 0.9, "confidence": 0.5, "epochs": 1},
    )
    tree["data"] |= {"days": 12, "users": 120}
    tree["trainer"] |= {"epochs": 2, "refit": True}
    return tree


def day_of(tree: Tree, first: int, last: int, **options: Any) -> dict[str, Any]:
    return daily(resolve(tree, [f"data.first_day={first}", f"data.last_day={last}"]), **options)


@pytest.fixture(scope="module")
def days(tree: Tree) -> list[dict[str, Any]]:
    """All until the ninth day; the tenth; and the eleventh, which nothing may be worse than."""
    store = f"sqlite:///{tree['output']}/users.db"
    tree["daily"]["users"] = store
    return [day_of(tree, 0, 8), day_of(tree, 9, 9)]


def test_the_first_bundle_goes_into_service_and_a_day_follows_as_a_delta(
    tree: Tree, days: list[dict[str, Any]]
) -> None:
    first, second = days
    assert (first["day"], first["state"]) == ("2024-01-09", "first")
    assert (second["day"], second["state"]) == ("2024-01-10", "published")
    folder = Path(tree["output"]) / "shop"
    deltas = [path.name for path in (folder / "deltas").iterdir()]
    assert deltas == ["2024-01-10.zip"] and 0 < second["delta_bytes"] < second["bundle_bytes"]
    assert Days(resolve(tree)).releases.current == second["version"]
    assert second["gate"]["users"] > 10 and "is allowed" in second["reason"]
    # in so small a log the day and the histories of its users are most of it, each read once
    assert first["rows"]["read"] == first["rows"]["log"] < second["rows"]["log"]
    assert len(list((folder / "store" / "by_user").iterdir())) == 2
    assert second["synced"] == second["arrived"]["stored"]  # the day alone
    page = (folder / "days.html").read_text()
    assert "2024-01-10" in page and page.count("<svg") == 2
    report = (folder / "days" / "2024-01-10" / "report.html").read_text()
    assert "in_service" in report  # of all figures: the gate's came after the first ones


def test_a_day_is_learned_from_the_run_in_service_and_known_ids_keep_their_rows(
    tree: Tree, days: list[dict[str, Any]]
) -> None:
    runs = Path(tree["output"]) / "shop" / "days"
    config = (runs / "2024-01-10" / "config.toml").read_text()
    assert f'start_from = "{runs / "2024-01-09"}"' in config
    assert 'since = "2024-01-07T00:00:00"' in config
    for table in ("user_id", "item_id"):
        before, after = (
            Vocabulary.load(runs / day / "checkpoints_refit" / "vocabulary" / f"{table}.arrow")
            for day in ("2024-01-09", "2024-01-10")
        )
        assert after.fingerprint_of(len(before)) == before.fingerprint


def test_days_without_events_before_the_test_are_passed_over(
    tree: Tree, days: list[dict[str, Any]]
) -> None:
    """Validation and the window end with the last day that there is, nine days earlier."""
    at = Days(resolve(tree))
    known = at.newest
    run = at.config_of(known + timedelta(days=10))
    start = run.split.model_dump()["validation_start"]
    assert start == datetime.combine(known, time())
    assert run.trainer.since == datetime.combine(known - timedelta(days=2), time())
    assert run.split.model_dump()["test_start"] == start + timedelta(days=10)


def test_old_runs_go_but_those_in_service_and_what_runs_that_stay_began_from(
    tree: Tree, tmp_path: Path
) -> None:
    days = Days(resolve(tree, [f"output={tmp_path}", "daily.keep_days=2"]))
    runs = days.folder / "days"
    begun_from = {"2024-01-07": "2024-01-03", "2024-01-05": "2024-01-02", "2024-01-04": None}
    for number in range(1, 9):
        own = runs / f"2024-01-0{number}"
        own.mkdir(parents=True)
        start = begun_from.get(own.name)
        told = resolve(tree, [f"trainer.start_from={runs / start}"] if start else [])
        if number != 6:  # one of which a kill has left little
            (own / "config.toml").write_text(told.to_toml())
    (runs / "notes").mkdir()
    days.record({"day": "2024-01-01", "state": "first"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Releases, "versions", lambda _: ["a"])
        patch.setattr(Days, "_run_of", lambda *_: "2024-01-04")
        kept = Days(resolve(tree, [f"output={tmp_path}", "daily.keep_days=2", "daily.stale=true"]))
        kept.remove_old()
        assert "2024-01-01" in {path.name for path in runs.iterdir()}
        assert days.remove_old() == ["2024-01-01"]
    # the newest two; what serves; what the seventh began from
    there = {"2024-01-07", "2024-01-08", "2024-01-04", "2024-01-03", "notes"}
    assert {path.name for path in runs.iterdir()} == there


def test_what_the_gate_holds_back_is_not_published_and_says_why(
    tree: Tree, days: list[dict[str, Any]], recsys: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(tree["output"]) / "shop"
    config = folder.parent / "shop.toml"
    strict = ["daily.max_fall=0.0", "daily.confidence=0.99999", "trainer.optimizer.learning_rate=9"]
    config.write_text(resolve(tree, strict).to_toml())
    status, told, _ = recsys("daily", config, "data.first_day=10", "data.last_day=10")
    assert status == 3 and told.startswith("2024-01-11: held back: NDCG@10 ")
    releases = Days(resolve(tree)).releases
    assert releases.current == days[1]["version"] and len(releases.versions()) == 2
    assert not (folder / "deltas" / "2024-01-11.zip").exists()
    records = json.loads((folder / "days.json").read_text())["days"]
    assert [record["state"] for record in records] == ["first", "published", "held back"]
    # the same call again trains nothing, and goes on to publish what is asked for all the same
    monkeypatch.setattr("recsys.runs.fit._train", lambda *_: 1 / 0)
    again = ["daily", config, "data.first_day=10", "data.last_day=10"]
    assert recsys(*again)[0] == 3
    status, told, _ = recsys(*again, "--force")
    assert status == 0 and told.startswith("2024-01-11: forced: ")
    assert releases.current != days[1]["version"]
    Recommender.open(releases.folder / "current").verify()
    with pytest.raises(ConfigError, match="2024-01-08 is before 2024-01-11, which is in service"):
        Days(resolve(tree)).config_of(date(2024, 1, 8))
    assert EventLog.open(folder / "store").num_rows == records[0]["arrived"]["stored"] + sum(
        record["arrived"]["stored"] for record in records[1:]
    )


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("split={protocol='leave_one_out'}", "under split.protocol = 'global_time', not 'leave"),
        ("split.test_days=2", "set split.test_days = 1"),
    ],
)
def test_what_cannot_go_on_day_by_day_is_refused_before_anything(
    tree: Tree, tmp_path: Path, override: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        daily(resolve(tree, [f"output={tmp_path}", override]), day=date(2024, 1, 3))
    assert not (tmp_path / "shop").exists()
