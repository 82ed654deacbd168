"""A search finds what is planted, draws the same for the same seed, and survives a kill."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from feature_store.errors import ConfigError, DataError
from recsys.config import parse_config
from recsys.tuning.options import Domain, TuneConfig
from recsys.tuning.study import Report, Study, Trial

SPACE = {
    "x": Domain(low=-4.0, high=4.0),
    "n": Domain(low=1, high=100, log=True),
    "side": Domain(choices=("left", "right")),
}


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    """No study of these tests must outlive a power cut."""

    def connected(connection: Any, record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", connected)
    yield
    event.remove(Engine, "connect", connected)


def planted(number: int, values: dict[str, Any], report: Report) -> dict[str, float]:
    """A hill with its top, 10, at x = 1, n = 10, side = "right"."""
    away = (values["x"] - 1) ** 2 + math.log10(values["n"] / 10) ** 2
    return {"NDCG@10": 10 - away - 3 * (values["side"] == "left"), "Recall@10": 0.5}


def open_study(path: Path, *, trials: int = 12, seed: int = 1, **changes: Any) -> Study:
    options = {"space": SPACE, "sampler": "tpe", "made_from": {"data": "d"}} | changes
    tune = TuneConfig(trials=trials, sampler=options.pop("sampler"))
    space = options.pop("space")
    return Study.open(path, space, tune, metric="NDCG@10", seed=seed, **options)


def search(study: Study, objective: Callable[..., Any] = planted) -> list[Trial]:
    study.search(objective, after=lambda trial: None)
    return study.trials


def drawn(trials: list[Trial]) -> list[tuple[Any, ...]]:
    """All of the trials but their seconds."""
    return [(t.number, t.state, t.values, t.value, t.figures, t.reason) for t in trials]


def tree(**space: Any) -> dict[str, Any]:
    return {
        "name": "r",
        "data": {"source": "synthetic"},
        "retriever": {"name": "sasrec"},
        "tune": {"space": space},
    }


def test_a_space_may_be_written_with_quotes_without_them_or_as_an_override() -> None:
    domain = {"low": 0.0, "high": 0.5}
    quoted = parse_config(tree(**{"retriever.dropout": domain}))
    assert parse_config(tree(retriever={"dropout": domain})) == quoted
    override = "tune.space.retriever.dropout={low = 0.0, high = 0.5}"
    assert parse_config(tree(), [override]) == quoted
    replaced = parse_config(tree(**{"retriever.dropout": {"choices": [0.1]}}), [override])
    assert replaced == quoted
    assert parse_config(quoted.to_dict()) == quoted


def test_how_one_searches_is_no_part_of_the_runs_fingerprint() -> None:
    other = parse_config(tree(retriever={"dropout": {"choices": [0.1, 0.2]}}), ["tune.trials=3"])
    assert other.fingerprint == parse_config(tree()).fingerprint


@pytest.mark.parametrize(
    ("domain", "fragment"),
    [
        ({}, "give low and high, or choices"),
        ({"low": 1}, "give low and high, or choices"),
        ({"low": 1, "high": 2, "choices": [1]}, "give low and high, or choices"),
        ({"low": 1, "choices": [1]}, "give low and high, or choices"),
        ({"low": 2, "high": 2}, "low must be below high"),
        ({"low": 0, "high": 2, "log": True}, "log needs a low above 0"),
        ({"low": "a", "high": 2}, "low: a bound must be a finite number"),
        ({"low": True, "high": 2}, "a bound must be a finite number"),
        ({"low": 0.0, "high": math.inf}, "a bound must be a finite number"),
        ({"choices": []}, "at least one value"),
        ({"choices": [1, 1]}, "choices must differ"),
        ({"lo": 1, "high": 2}, "'lo' is unknown; known: low, high, log, choices"),
        (3, "must be a table, got 3"),
    ],
)
def test_a_domain_that_cannot_be_meant_is_named(domain: Any, fragment: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(tree(**{"retriever.width": domain}))
    message = str(caught.value)
    assert "tune.space.retriever.width" in message and fragment in message
    assert "\n" not in message


def test_values_keep_the_type_that_the_domain_has(tmp_path: Path) -> None:
    choices = ([128], [], [256, 128], "1", 1, 1.0, True)
    space = {
        "whole": Domain(low=1, high=3),
        "number": Domain(low=1, high=3.0),
        "any": Domain(choices=choices),
    }
    study = open_study(tmp_path / "s.db", space=space, sampler="random", trials=40)
    trials = search(study, lambda number, values, report: {"NDCG@10": 0.0})
    assert {t.values["whole"] for t in trials} == {1, 2, 3}
    assert all(type(t.values["whole"]) is int for t in trials)
    assert all(type(t.values["number"]) is float and 1 <= t.values["number"] <= 3 for t in trials)
    assert {json.dumps(t.values["any"]) for t in trials} == {json.dumps(one) for one in choices}


def test_the_planted_top_is_found(tmp_path: Path) -> None:
    study = open_study(tmp_path / "s.db", trials=40)
    trials = search(study)
    best = study.best
    assert best is not None and best.value == max(t.value for t in trials if t.value is not None)
    assert best.values["side"] == "right" and best.value > 9.5
    assert best.figures == planted(0, best.values, lambda epoch, figure: None)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_gives_the_same_trials_also_after_a_kill(
    tmp_path: Path, sampler: str
) -> None:
    """Fourteen trials go beyond the ten that TPE draws at random before it learns."""
    whole = search(open_study(tmp_path / "whole.db", sampler=sampler, trials=14))
    assert len({json.dumps(t.values) for t in whole}) == 14

    def killed(number: int, values: dict[str, Any], report: Report) -> dict[str, float]:
        if number == 13:
            raise KeyboardInterrupt
        return planted(number, values, report)

    path = tmp_path / "killed.db"
    with pytest.raises(KeyboardInterrupt):
        search(open_study(path, sampler=sampler, trials=14), killed)
    again = open_study(path, sampler=sampler, trials=14, resume=True)
    assert drawn(again.trials) == drawn(whole)[:12]
    assert drawn(search(again)) == drawn(whole)
    other = search(open_study(tmp_path / "other.db", sampler=sampler, trials=2, seed=2))
    assert [t.values for t in other] != [t.values for t in whole[:2]]


def test_a_search_is_made_longer(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    first = search(open_study(path, trials=3))
    longer = search(open_study(path, trials=5, resume=True))
    assert len(longer) == 5 and drawn(longer[:3]) == drawn(first)
    assert drawn(longer) == drawn(search(open_study(tmp_path / "at_once.db", trials=5)))


def test_a_failure_is_kept_with_its_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    def fragile(number: int, values: dict[str, Any], report: Report) -> dict[str, float]:
        if number == 1:
            raise DataError("too large")
        if number == 2:
            return {"NDCG@10": math.nan}
        if number == 3:
            return {"Recall@10": 1.0}
        return {"NDCG@10": -1.0 / number, "AUC": math.nan}

    study = open_study(tmp_path / "s.db", trials=6)
    trials = search(study, fragile)
    assert [t.state for t in trials] == ["failed"] * 3 + ["finished"] * 3
    assert trials[0].reason == "too large" and trials[0].value is None
    assert trials[1].reason == trials[2].reason == "no finite NDCG@10 was measured"
    assert trials[3].figures == {"NDCG@10": -0.25}
    assert study.best == trials[5]


def test_a_failure_of_the_program_is_not_taken_for_the_trials(tmp_path: Path) -> None:
    def wrong(number: int, values: dict[str, Any], report: Report) -> dict[str, float]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        search(open_study(tmp_path / "s.db"), wrong)


def test_values_that_were_tried_are_not_tried_again(tmp_path: Path) -> None:
    asked = []

    def counted(number: int, values: dict[str, Any], report: Report) -> dict[str, float]:
        asked.append(values["n"])
        if values["n"] == 2:
            raise ConfigError("never 2")
        return {"NDCG@10": float(values["n"])}

    space = {"n": Domain(low=1, high=3)}
    study = open_study(tmp_path / "s.db", space=space, sampler="random", trials=14)
    trials = search(study, counted)
    assert sorted(asked) == [1, 2, 3] and len(trials) == 14
    assert all(t.value == t.values["n"] for t in trials if t.state == "finished")
    reasons = {t.reason for t in trials if t.values["n"] == 2}
    assert any("never 2" in str(reason) for reason in reasons)
    assert all(t.state == "failed" for t in trials if t.values["n"] == 2)
    assert study.best is not None and study.best.number == 1 + [
        t.values["n"] for t in trials
    ].index(3)


def test_a_trial_that_falls_behind_is_given_up_after_the_warm_up(tmp_path: Path) -> None:
    """The first five are whole; of the others those below the median stop at epoch 3."""
    epochs: dict[int, int] = {}

    def epochwise(number: int, values: dict[str, Any], report: Report) -> dict[str, float]:
        top = 1.0 - 0.1 * number if number <= 5 else (0.01 if number % 2 else 2.0 + number)
        for epoch in range(1, 6):
            epochs[number] = epoch
            report(epoch, top * epoch)
        return {"NDCG@10": top * 5}

    study = open_study(tmp_path / "s.db", trials=9, warmup=3)
    trials = search(study, epochwise)
    assert [t.state for t in trials] == ["finished"] * 6 + ["pruned", "finished", "pruned"]
    assert epochs == {**dict.fromkeys([1, 2, 3, 4, 5, 6, 8], 5), 7: 3, 9: 3}
    assert "epoch 3" in str(trials[6].reason) and trials[6].value is None
    assert study.best is not None and study.best.number == 8


def test_no_trial_is_begun_after_the_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds: Iterator[float] = iter([0.0, 1.0, 59.0, 121.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    tune = TuneConfig(trials=9, timeout=2)
    study = Study.open(tmp_path / "s.db", SPACE, tune, metric="NDCG@10", seed=1, made_from={})
    assert len(search(study)) == 2


def test_a_search_is_not_overwritten_nor_taken_for_another(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    search(open_study(path, trials=2))
    with pytest.raises(ConfigError, match=r"2 trials: go on with --resume.*--replace"):
        open_study(path)
    with pytest.raises(ConfigError, match=r"2 trials with another data, tune\.space: use that"):
        open_study(path, space={"y": SPACE["x"]}, made_from={})
    changes: list[tuple[str, dict[str, Any]]] = [
        ("another seed:", {"seed": 2}),
        ("another tune.sampler:", {"sampler": "random"}),
        ("another data:", {"made_from": {"data": "e"}}),
        ("another data, tune.space:", {"space": {"x": SPACE["x"]}, "made_from": {}}),
    ]
    for fragment, change in changes:
        with pytest.raises(ConfigError, match=fragment):
            open_study(path, resume=True, **change)
    assert len(open_study(path, resume=True).trials) == 2
    assert open_study(path, seed=2, replace=True).trials == []


def test_a_file_that_is_no_study(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_text("something else, long enough to be no header of a database" * 20)
    with pytest.raises(DataError, match="no study that can be read: use --replace"):
        open_study(path, resume=True)
    assert open_study(path, replace=True).trials == []
