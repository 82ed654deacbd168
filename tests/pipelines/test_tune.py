"""`recsys tune` over a log whose best options are planted."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import sqlalchemy
import tomli_w

from feature_store.errors import ConfigError, DataError
from pipelines.race import race_retrievers
from pipelines.tune import tune
from recsys.config import RunConfig, load_config, parse_config
from recsys.retrievers import RETRIEVERS, retriever_class
from recsys.retrievers.sasrec import SASRec
from recsys.runs import search
from recsys.runs.fit import fit
from recsys.runs.prepare import prepare
from recsys.runs.search_space import for_retriever, judged_by, search_space
from recsys.runs.work import working_on

Tree = dict[str, Any]
Ask = Callable[..., tuple[Any, str, str]]
START = datetime(2024, 1, 1)
DAYS = {"retriever.days": {"choices": [0.5, 10.0, 1000.0]}}


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    """Neither studies nor tracked runs of these tests must outlive a power cut."""

    def connected(connection: Any, record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", connected)
    yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", connected)


def event(user: int, item: str, day: float) -> tuple[int, str, datetime]:
    return user, item, START + timedelta(days=day)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everyone bought six of ten old things, then two of five new ones; validation is another of
    the new ones. Fads were bought on the last day of training, and the test is an old thing.

    So the three most popular items of the last ten days hold each user's validation item: of the
    last half day that is fads alone, of all days old things. On the test all days would win.
    """
    events = []
    for user in range(40):
        events += [event(user, f"old{(user + i) % 10}", 8 * i + user / 100) for i in range(6)]
        events += [event(user, f"new{(user + i) % 5}", 90 + i) for i in range(2)]
        if user < 8:
            events.append(event(user, f"fad{user % 4}", 96))
        events.append(event(user, f"new{(user + 2) % 5}", 97))
        events.append(event(user, f"old{(user + 7) % 10}", 98))
    path = tmp_path_factory.mktemp("log") / "events.parquet"
    pd.DataFrame(events, columns=["user", "item", "time"]).to_parquet(path)
    return path


def planted(log: Path, output: Path, **sections: Any) -> Tree:
    """A config of popularity in the last days, whose best length is ten."""
    columns = {"user": "user", "item": "item", "time": "time"}
    return {
        "name": "planted",
        "seed": 5,
        "output": str(output),
        "data": {"source": "parquet", "path": str(log), "columns": columns},
        "retriever": {"name": "recent_popularity"},
        "trainer": {"epochs": 2, "metric": "Recall@3", "device": "cpu"},
        "evaluation": {"ks": [1, 3]},
        "tracking": {"enabled": False},
        "tune": {"trials": 8, "sampler": "random", "space": DAYS},
        **sections,
    }


@pytest.fixture
def file(log: Path, tmp_path: Path) -> Path:
    """The planted config as a file, with its runs beside it."""
    path = tmp_path / "planted.toml"
    path.write_text(tomli_w.dumps(planted(log, tmp_path / "runs")))
    return path


def without_seconds(found: dict[str, Any]) -> dict[str, Any]:
    return found | {"trials": [{**t, "seconds": 0} for t in found["trials"]]}


def error_of(config: Tree | RunConfig, **options: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        tune(parse_config(config) if isinstance(config, dict) else config, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_planted_options_are_found_and_the_trials_tracked(log: Path, tmp_path: Path) -> None:
    config = parse_config(planted(log, tmp_path, tracking={"experiment": "tests"}))
    found = tune(config)
    values = {t["values"]["retriever.days"]: t["value"] for t in found["trials"]}
    assert values == {0.5: 0.0, 10.0: 1.0, 1000.0: 0.0}
    best = found["trials"][found["best"] - 1]
    assert best["values"] == {"retriever.days": 10.0} and best["figures"]["HR@3"] == 1.0

    client = mlflow.MlflowClient(config.tracking_uri)
    experiment = client.get_experiment_by_name("tests")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert len(children) == 3  # values that come again are not tried again
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == parent.info.status == "FINISHED"
        days = float(child.data.params["retriever.days"])
        assert child.data.metrics["validation/Recall_at_3"] == values[days]
    assert parent.data.metrics["validation/Recall_at_3"] == 1.0
    assert parent.data.tags["protocol_fingerprint"] == found["protocol_fingerprint"]
    names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert names == {"tuning.json", "tuned.toml", "plots"}


def test_from_the_command_line(recsys: Ask, file: Path) -> None:
    status, out, errors = recsys("tune", file)
    assert status == 0
    folder = file.parent / "runs" / "planted"
    found = json.loads((folder / "tuning.json").read_text())
    assert (found["metric"], found["sampler"], found["seed"]) == ("Recall@3", "random", 5)
    assert found["protocol"] in out and found["protocol_fingerprint"] in out
    assert "Recall@3" in out and str(folder / "tuned.toml") in out
    assert errors.count("\ntrial ") == 8 and f"best 1.0000 (trial {found['best']})" in errors
    assert (folder / "plots" / "tuning.png").stat().st_size > 10_000
    first, *_ = (folder / "tuned.toml").read_text().splitlines()
    assert first.startswith("# ") and "Recall@3 1.0000" in first and found["protocol"] in first
    assert load_config(folder / "tuned.toml") == load_config(file, ["retriever.days=10.0"])

    before = (folder / "tuning.json").read_bytes()
    message, _, _ = recsys("tune", file)
    assert "8 trials: go on with --resume, or begin anew with --replace" in message
    message, _, _ = recsys("tune", file, "--resume", "--replace")
    assert "choose one" in message
    message, _, _ = recsys("tune", file, "--resume", "trainer.epochs=3")
    assert "another trainer:" in message
    assert (folder / "tuning.json").read_bytes() == before
    assert recsys("tune", file, "--resume", "tune.trials=10")[0] == 0
    longer = json.loads((folder / "tuning.json").read_text())
    assert len(longer["trials"]) == 10 and longer["trials"][:8] == found["trials"]
    assert recsys("tune", file, "--replace")[0] == 0
    again = json.loads((folder / "tuning.json").read_text())
    assert without_seconds(again) == without_seconds(found)


def test_help_teaches_the_search_space(recsys: Ask) -> None:
    status, out, _ = recsys("tune", "--help")
    text = " ".join(out.split())
    assert status == 0
    for fragment in (
        "validation alone",
        "tune.space",
        "low=0.0",
        "tuned.toml",
        "--resume",
        "--replace",
    ):
        assert fragment in text


def test_another_retriever_over_the_same_data(recsys: Ask, file: Path) -> None:
    tree = tomllib.loads(file.read_text())
    # options and space of the config's own retriever are no business of another
    tree["retriever"] = {"name": "sasrec", "width": 8}
    tree["tune"]["space"] = {"retriever.width": {"choices": [8, 16]}}
    file.write_text(tomli_w.dumps(tree))
    space = "tune.space.retriever.days={choices = [0.5, 10.0]}"
    status, out, _ = recsys("tune", file, space, "--retriever", "recent_popularity")
    assert status == 0
    snippet = out[out.index("[[baselines]]") : out.index("tuned: ")]
    assert tomllib.loads(snippet) == {"baselines": [{"name": "recent_popularity", "days": 10.0}]}
    assert parse_config(tree | tomllib.loads(snippet)).baselines is not None
    run = file.parent / "runs" / "planted"
    assert {path.name for path in run.iterdir()} == {".lock", "tuning"}
    folder = run / "tuning" / "recent_popularity"
    tuned = load_config(folder / "tuned.toml")
    assert tuned.name == "planted_recent_popularity"
    assert tuned.retriever.model_dump() == {"name": "recent_popularity", "days": 10.0}
    assert tuned.store_folder == load_config(file).store_folder

    message, _, _ = recsys("tune", file, "--retriever", "magic")
    assert message.startswith("recsys: ") and "sasrec" in message
    message, _, _ = recsys("tune", file, "--retriever", "popularity")
    assert "'popularity' has no options: there is nothing to tune" in message


@pytest.mark.parametrize(
    ("space", "fragments"),
    [
        (
            {"retriever.day": {"low": 1, "high": 2}},
            ["unknown key retriever.day", "mean retriever.days?"],
        ),
        ({"colour": {"low": 1, "high": 2}}, ["unknown key colour", "known: "]),
        ({"retriever.days": {"low": -1, "high": 2}}, ["retriever.days", "must be above 0", "-1"]),
        ({"retriever.days": {"choices": [1, "long"]}}, ["retriever.days", "'long'"]),
        ({"retriever.name": {"choices": ["sasrec"]}}, ["retriever.name cannot be tuned"]),
        ({"split.seen": {"choices": ["include"]}}, ["split.seen cannot be tuned", "retriever"]),
        ({"seed": {"low": 1, "high": 9}}, ["seed cannot be tuned"]),
        ({"trainer.epochs": {"low": 1, "high": 9}}, ["trainer.epochs cannot be tuned"]),
    ],
)
def test_a_space_that_does_not_fit_is_refused_before_any_trial(
    log: Path, tmp_path: Path, space: Tree, fragments: list[str]
) -> None:
    message = error_of(planted(log, tmp_path, tune={"space": space}))
    for fragment in ["tune.space: ", *fragments]:
        assert fragment in message
    assert list(tmp_path.iterdir()) == []


def test_what_else_cannot_be_tuned(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = planted(log, tmp_path, tune={"metric": "Recall@7", "space": DAYS})
    message = error_of(tree)
    assert "tune.metric: 'Recall@7'" in message and "Recall@3" in message
    config = parse_config(planted(log, tmp_path, tune={}))
    monkeypatch.setattr(type(config.retriever), "search_space", {}, raising=False)
    message = error_of(config)
    assert "[tune.space]" in message and '"retriever.days" =' in message


@pytest.mark.parametrize(
    "name", [name for name in RETRIEVERS if retriever_class(name).Config.search_space]
)
def test_what_a_retriever_proposes_fits_its_config(log: Path, tmp_path: Path, name: str) -> None:
    config, files = for_retriever(parse_config(planted(log, tmp_path)), name)
    assert all(key.startswith("retriever.") for key in search_space(config))
    assert files.path == tmp_path / "planted" / "tuning" / name


def test_options_that_cannot_run_fail_alone(log: Path, tmp_path: Path) -> None:
    """Nine is no multiple of two heads."""
    retriever = {"name": "sasrec", "heads": 2, "blocks": 1, "max_length": 5}
    space = {"retriever.width": {"choices": [8, 9]}}
    tree = planted(log, tmp_path, retriever=retriever)
    tree["tune"] = {"trials": 4, "sampler": "random", "space": space}
    found = tune(parse_config(tree))
    states = {t["values"]["retriever.width"]: t["state"] for t in found["trials"]}
    assert states == {8: "finished", 9: "failed"}
    (reason, *_) = [t["reason"] for t in found["trials"] if t["state"] == "failed"]
    assert "retriever.width = 9 is not a multiple" in reason
    tree["tune"]["space"] = {"retriever.width": {"choices": [9]}}
    message = error_of(parse_config(tree), replace=True)
    assert "none of 4 trials (4 failed) could be finished: retriever.width = 9" in message
    left = {path.name for path in (tmp_path / "planted").iterdir()}
    assert left == {".lock", "examples", "plots", "tuning.db", "tuning.json"}  # no tuned.toml


PHASES = [{"name": "pretrain", "epochs": 2, "learning_rate": 0.05}, {"name": "train"}]


@pytest.fixture
def of_phases(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A config of a model that learns in two phases."""
    monkeypatch.setattr(SASRec, "phases", ("pretrain", "train"))
    tree = planted(log, tmp_path / "runs")
    tree["retriever"] = {"name": "sasrec", "width": 8, "blocks": 1, "max_length": 5}
    tree["trainer"]["phases"] = PHASES
    tree["tune"] = {"trials": 1, "space": {"retriever.max_length": {"choices": [5]}}}
    return tree


def test_a_trial_goes_through_all_phases(of_phases: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figure is the one that the run's training reaches, and only the last phase's epochs are
    reported, by which trials are given up."""
    reported: list[int] = []
    monkeypatch.setattr(
        "optuna.trial.Trial.report", lambda self, figure, epoch: reported.append(epoch)
    )
    calls: list[tuple[str, bool]] = []
    trainer_of = search.trainer_of

    def made(*arguments: Any, **options: Any) -> Any:
        calls.append((options["phase"], options["start_from"] is not None))
        return trainer_of(*arguments, **options)

    monkeypatch.setattr(search, "trainer_of", made)
    (trial,) = tune(parse_config(of_phases))["trials"]
    assert calls == [("pretrain", False), ("train", True)] and reported == [1, 2]
    trained = parse_config(of_phases, ["name=trained"])
    with working_on(trained) as work, work.tracked() as tracker:
        fit(work, tracker)
    record = json.loads(work.files.training_record.read_text())
    assert record["pretrain_history"] and trial["value"] == record["best"]


def test_options_that_each_phase_has_for_itself_are_refused(of_phases: Tree) -> None:
    of_phases["tune"]["space"] = {"trainer.epochs": {"low": 1, "high": 3}}
    search_space(parse_config(of_phases))  # the second phase takes it
    of_phases["trainer"]["phases"] = [PHASES[0], PHASES[1] | {"epochs": 3, "learning_rate": 0.1}]
    for option in ("trainer.epochs", "trainer.optimizer.learning_rate"):
        of_phases["tune"]["space"] = {option: {"low": 1, "high": 3}}
        message = error_of(of_phases)
        assert f"tune.space: {option} changes nothing" in message and "trainer.phases" in message
    whole = {"choices": [PHASES, PHASES[1:]]}
    of_phases["tune"]["space"] = {"trainer.phases": whole}
    search_space(parse_config(of_phases))
    of_phases["tune"]["retrievers"] = ["sasrec"]
    with pytest.raises(ConfigError, match=r"trainer\.phases: sasrec races by one training"):
        race_retrievers(parse_config(of_phases))


def test_the_last_phase_chooses_by_the_figure_that_is_compared(of_phases: Tree) -> None:
    of_phases["trainer"]["phases"] = [PHASES[0], PHASES[1] | {"metric": "NDCG@3"}]
    judged = judged_by(parse_config(of_phases))
    before, last = judged.trainer.phases
    assert (judged.metric, before.metric, last.metric) == ("NDCG@3", "Recall@3", "NDCG@3")
    of_phases["tune"]["metric"] = "HR@3"
    judged = judged_by(parse_config(of_phases))
    before, last = judged.trainer.phases
    assert (judged.metric, before.metric, last.metric) == ("HR@3", "Recall@3", "HR@3")
    other, _ = for_retriever(judged, "bpr")
    assert other.trainer.phases == ()  # another's phases are no business of it


def test_histories_are_as_long_as_the_longest_trial_reads(log: Path, tmp_path: Path) -> None:
    """One folder of examples serves all trials: figures are those of examples cut for each."""
    figures = []
    for place, lengths in enumerate(([2, 6], [2], [6])):
        tree = planted(log, tmp_path / str(place))
        tree["retriever"] = {"name": "two_tower", "width": 16, "hidden": []}
        tree["trainer"]["optimizer"] = {"learning_rate": 0.05}  # what is read tells after six steps
        tree["tune"] = {"trials": 4, "space": {"retriever.max_length": {"choices": lengths}}}
        config = parse_config(tree)
        found = tune(config)
        figures.append({t["values"]["retriever.max_length"]: t["figures"] for t in found["trials"]})
        longest = parse_config(tree, [f"retriever.max_length={max(lengths)}"])
        assert prepare(longest).summary.history_length == max(lengths)
    assert figures[0] == figures[1] | figures[2]
    assert figures[0][2] != figures[0][6]


def test_tracking_that_fails_stops_nothing(log: Path, tmp_path: Path) -> None:
    tracking = {"uri": "http://127.0.0.1:9"}
    found = tune(parse_config(planted(log, tmp_path, tracking=tracking)))
    assert found["trials"][found["best"] - 1]["value"] == 1.0
