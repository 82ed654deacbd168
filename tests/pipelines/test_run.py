"""The main job end to end: what it leaves behind, and that a stop or a kill changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
import tomli_w
from forks import Forks

import recsys
from feature_store.errors import ConfigError, DataError
from pipelines.evaluate import evaluate
from pipelines.run import resolve, run
from pipelines.train import train
from recsys.config import load_config
from recsys.runs.finished import Run
from recsys.serving.recommender import Recommender
from recsys.training.trainer import Trainer

Tree = dict[str, Any]
TreeOf = Callable[..., Tree]
Drawing = Callable[[], AbstractContextManager[None]]
REFIT = {"trainer": {"epochs": 4, "device": "cpu", "refit": True}}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(tree_of: TreeOf, output: Path, drawing: Drawing) -> Run:
    """A run with everything switched on."""
    with drawing():
        return run(tree_of(output, tracking={"experiment": "tests"}, **REFIT))


def per_user(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(folder / "per_user" / f"{name}.parquet")


def test_figures_are_averages_over_the_users_beside_them(finished: Run) -> None:
    results = finished.results["retrievers"]
    assert list(results) == ["sasrec", "popularity", "recent_popularity"]
    for name, found in results.items():
        users = per_user(finished.folder, name)
        assert len(users) == found["users"] and users["user"].is_unique
        for metric, value in found["metrics"].items():
            low, high = found["ci95"][metric]
            if value is None:  # a list of one item has no diversity
                assert metric.endswith("Diversity@1") and users[metric].isna().all()
                continue
            assert low <= value <= high
            if metric.startswith("Coverage"):
                lists = users["recommended"].str[: int(metric.split("@")[1])]
                value *= finished.results["candidates"]
                assert lists.explode().nunique() == pytest.approx(value)
            elif metric.startswith("GMVCapture"):
                money = users[metric.replace("Capture", "")].sum() / users["value"].sum()
                assert money == pytest.approx(value)
            elif not metric.startswith(("Gini", "F1OfMeans")):
                assert users[metric].mean() == pytest.approx(value, abs=1e-12)
    random = 10 / finished.results["candidates"]
    assert results["sasrec"]["metrics"]["Recall@10"] > 1.2 * random


def test_the_folder_holds_what_is_promised(finished: Run) -> None:
    here = {path.name for path in finished.folder.iterdir()}
    assert here >= {"config.toml", "examples", "checkpoints", "training.json", "metrics.json"}
    assert here >= {"per_user", "plots", "report.html", "bundle"}
    assert {p.stem for p in (finished.folder / "plots").iterdir()} >= {
        *("recall_over_k", "ndcg_over_k", "coverage_against_recall", "gmvcapture_over_k"),
        *("training_loss", "validation", "slice_activity"),
    }
    assert load_config(finished.folder / "config.toml").name == "small"


def test_the_bundle_is_of_the_model_that_was_measured(finished: Run) -> None:
    """Asked with the histories of the test, it recommends what metrics.json speaks of."""
    recommender = Recommender.open(finished.bundle)
    about = recommender.generator.record.about
    assert (about.run, about.model) == ("small", "sasrec")
    assert about.metrics == finished.results["retrievers"]["sasrec"]["metrics"]
    assert about.run_fingerprint == load_config(finished.folder / "config.toml").fingerprint
    newest = recommender.requests_of(recommender.users()).to_pandas()
    history = newest["history"].str[:-1]  # without the event of the test
    asked = newest.assign(history=history)[history.str.len() > 1]
    found = recommender.recommend(requests=asked, k=10).groupby("user")["item"].agg(list)
    users = per_user(finished.folder, "sasrec").set_index("user")
    equal = [found[user] == list(row[:10]) for user, row in users["recommended"].items()]
    assert sum(equal) >= 0.97 * len(users)


def test_refit_trains_anew_on_validation_events_too(finished: Run) -> None:
    record = json.loads((finished.folder / "training.json").read_text())
    assert len(record["refit_history"]) == record["best_epoch"] <= len(record["history"]) == 4
    counts = {
        name: json.loads((finished.folder / name / "examples.json").read_text())
        for name in ("examples", "examples_refit")
    }
    assert counts["examples_refit"]["train_roles"] == ["train", "validation", "validation_input"]
    trained = [pd.read_parquet(finished.folder / n / "interactions.parquet") for n in counts]
    assert len(trained[1]) - len(trained[0]) == counts["examples"]["events"]["validation"]


def test_the_run_is_tracked_and_its_bundle_registered(finished: Run) -> None:
    config = load_config(finished.folder / "config.toml")
    client = mlflow.MlflowClient(config.tracking_uri)
    version = client.get_model_version_by_alias("small", "candidate")
    tracked = client.get_run(str(version.run_id))
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["retriever.name"] == "sasrec"
    assert tracked.data.params["trainer.epochs"] == "4"
    value = finished.metrics.loc["sasrec", "NDCG@10"]
    assert tracked.data.metrics["test/leave_one_out/NDCG_at_10"] == pytest.approx(value)
    assert all(
        "leave_one_out" in name for name in tracked.data.metrics if "_at_" in name
    )  # no figure without its protocol
    figures = [name for name in tracked.data.metrics if name.startswith("test/leave_one_out/")]
    few = [name.removeprefix("test/leave_one_out/") for name in figures]
    assert set(few) == {
        *("Recall_at_10", "NDCG_at_10", "Coverage_at_10", "GMV_at_10", "GMVCapture_at_10"),
        *("popularity/NDCG_at_10", "recent_popularity/NDCG_at_10"),
        *("beats_baselines", "findable"),
    }
    of_run = {name: tracked.data.metrics[f"test/leave_one_out/{name}"] for name in few}
    assert of_run["beats_baselines"] == finished.results["verdict"]["beats_baselines"]
    targets = finished.results["ceiling"]["targets"]
    assert of_run["findable"] == targets["findable"] / targets["all"]
    described = tracked.data.tags["mlflow.note.content"]
    assert (
        f"| sasrec | {finished.metrics.loc['sasrec', 'Recall@10']:.4f} | {value:.4f} |" in described
    )
    assert "report.html" in described and "could be found at all" in described
    assert "the best of them is " in described or "the best baseline is " in described
    losses = client.get_metric_history(tracked.info.run_id, "train/loss")
    assert len(losses) == 4 and losses[-1].value < losses[0].value
    names = {file.path for file in client.list_artifacts(tracked.info.run_id)}
    assert {"bundle", "metrics.json", "per_user", "plots", "report.html"} <= names
    source = str(version.source).removeprefix("file://")
    assert (Path(source) / "manifest.json").exists()


def test_a_finished_run_can_be_opened_and_asked(finished: Run) -> None:
    opened = recsys.open_run(finished.folder)
    assert opened.metrics.index.tolist() == ["sasrec", "popularity", "recent_popularity"]
    assert {"Recall@10", "HR@10", "NDCG@10", "MRR@10", "Coverage@10"} <= set(opened.metrics)
    users = opened.recommender.users()[:3]
    found = opened.recommend(users, k=5)
    assert found.columns.tolist() == [
        "user",
        "rank",
        "item",
        "score",
        "title",
        "origin",
        "fallback",
    ]
    assert found.groupby("user").size().tolist() == [5] * 3
    known = opened.recommender.requests_of(users).to_pandas().set_index("user_id")["history"]
    assert not any(item in known[user] for user, item in zip(found.user, found.item, strict=True))
    by_request = opened.recommend(pd.DataFrame({"history": [known[users[0]]]}), k=5)
    assert by_request["item"].tolist() == found["item"][:5].tolist()


def figures_of(tree: Tree, *changes: str) -> Run:
    """A run without a bundle."""
    config = resolve(tree, [*changes])
    train(config)
    evaluate(config)
    return Run(config.folder)


def test_the_same_seed_gives_the_same_figures(
    finished: Run, tree_of: TreeOf, tmp_path: Path
) -> None:
    again = recsys.run(tree_of(tmp_path, **REFIT))
    other, plain = (
        figures_of(tree_of(tmp_path, **REFIT), *changes)
        for changes in (("seed=4", "name=other"), ("trainer.refit=false", "name=plain"))
    )
    first = (finished.folder / "metrics.json").read_bytes()
    assert (again.folder / "metrics.json").read_bytes() == first
    assert not again.metrics.loc["sasrec"].equals(other.metrics.loc["sasrec"])
    assert not again.metrics.loc["sasrec"].equals(plain.metrics.loc["sasrec"])
    assert other.folder == tmp_path / "other"


def test_what_is_done_is_not_done_again(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resuming a finished run reads no raw data and trains no step."""

    def never(*_: object) -> None:
        raise AssertionError("done twice")

    from feature_store.sources.synthetic import Synthetic

    monkeypatch.setattr(Trainer, "step", never)
    monkeypatch.setattr(Synthetic, "read_events", never)
    before = (finished.folder / "metrics.json").read_bytes()
    again = run(finished.folder / "config.toml", ["tracking.enabled=false"], resume=True)
    assert (again.folder / "metrics.json").read_bytes() == before


def test_resuming_with_another_config_is_refused_and_changes_nothing(finished: Run) -> None:
    path = finished.folder / "config.toml"
    before = path.read_text()
    changes = ["trainer.optimizer.learning_rate=0.5", "tracking.enabled=false"]
    with pytest.raises(ConfigError, match="checkpoints of another config") as caught:
        run(path, changes, resume=True)
    assert str(finished.folder / "checkpoints") in str(caught.value)
    assert tomllib.loads(path.read_text())["trainer"] == tomllib.loads(before)["trainer"]


@pytest.mark.parametrize(
    "retriever",
    [
        {"name": "popularity"},
        {"name": "two_tower", "width": 16, "hidden": [16]},
    ],
    ids=lambda retriever: retriever["name"],
)
def test_other_retrievers_and_protocols_run_too(
    tree_of: TreeOf, tmp_path: Path, retriever: Tree
) -> None:
    tree = tree_of(
        tmp_path,
        retriever=retriever,
        split={
            "protocol": "global_time",
            "event_types": ["click", "purchase"],
            "test_days": 10,
            "validation_days": 10,
            "seen": "include",
            "candidates": "catalogue",
        },
        trainer={"epochs": 1, "metric": "NDCG@5"},
        evaluation={"ks": [5, 100]},
        baselines=["popularity"],
        export={"index": {"kind": "faiss"}},
    )
    done = run(tree)
    assert done.results["candidates"] == 60
    assert done.metrics.loc[retriever["name"], "Recall@100"] == 1.0  # every item is in the list
    assert done.recommender.generator.record.index.config.kind == "faiss"
    assert len(done.recommend(done.recommender.users()[:2], k=3)) == 6


def test_held_out_items_are_the_only_ones_that_are_ranked_and_served(
    tree_of: TreeOf, tmp_path: Path
) -> None:
    tree = tree_of(
        tmp_path,
        retriever={"name": "two_tower", "width": 16, "hidden": [], "id_dropout": 0.5},
        split={"protocol": "item_holdout", "test": 0.2},
        trainer={"epochs": 1, "refit": True},
        baselines=["popularity"],
    )
    done = run(tree)
    assert done.results["protocol"] == "item_holdout-new"
    assert done.results["candidates"] == 12  # a fifth of 60
    found = done.recommend(done.recommender.users(), k=60)
    events = pd.concat(
        pd.read_parquet(path) for path in (tmp_path / "store").glob("*/events/**/*.parquet")
    )
    tested = set(found["item"])
    assert len(tested) == 12
    had = events["item_id"].isin(tested) & ~(events["quantity"] < 0)  # returns are not asked for
    assert done.results["events"]["test"] == had.sum()


def test_two_processes_leave_what_one_does(tree_of: TreeOf, tmp_path: Path) -> None:
    """The whole job under torchrun, the items' table split by rows over both."""
    retriever = {"name": "sasrec", "width": 16, "blocks": 1, "max_length": 20, "dropout": 0.0}
    trainer = {"epochs": 1, "device": "cpu", "optimizer": {"sharded": "adagrad"}}
    more = {"embeddings": {"shard_above_mb": 0}, "reader": {"batch_size": 16, "lanes": 2}}
    tree = tree_of(tmp_path, retriever=retriever, trainer=trainer, **more)
    path = tmp_path / "small.toml"
    path.write_text(tomli_w.dumps(tree))
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*start, "-m", "pipelines.cli", "run", path, "name=on2"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "verified" in done.stderr
    one, two = (
        found.results["retrievers"]["sasrec"] for found in (run(tree), Run(tmp_path / "on2"))
    )
    assert two["parameters"] == one["parameters"]
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-4)


def test_folders_that_are_no_finished_runs_say_so(tree_of: TreeOf, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a run: it has no config"):
        recsys.open_run(tmp_path)
    (tmp_path / "config.toml").write_text(tomli_w.dumps(tree_of(tmp_path)))
    with pytest.raises(DataError, match="was not evaluated: run `recsys evaluate"):
        _ = recsys.open_run(tmp_path).metrics
    with pytest.raises(DataError, match="has no bundle: run `recsys export"):
        recsys.open_run(tmp_path).recommend([1])


def test_a_killed_run_resumes_to_the_figures_of_one_left_alone(
    recsys: Callable[..., tuple[Any, str, str]], tree_of: TreeOf, apart: Forks, tmp_path: Path
) -> None:
    """SIGKILL in the middle of an epoch, at a moment that nothing is told of."""
    paths = {name: tmp_path / f"{name}.toml" for name in ("alone", "killed")}
    for name, path in paths.items():
        trainer = {"epochs": 6, "patience": 6, "checkpoint_every_steps": 2, "device": "cpu"}
        path.write_text(tomli_w.dumps(tree_of(tmp_path / name, trainer=trainer)))
    (doomed,) = apart.start("run", paths["killed"])
    checkpoints = tmp_path / "killed" / "small" / "checkpoints"
    deadline = time.monotonic() + 90
    while not [p for p in checkpoints.glob("step-*") if p.name > "step-000000015"]:
        os.kill(doomed, 0)
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(doomed, signal.SIGKILL)
    assert apart.wait().codes == [-signal.SIGKILL]
    assert not (tmp_path / "killed" / "small" / "training.json").exists()
    assert recsys("run", paths["alone"])[0] == recsys("run", paths["killed"], "--resume")[0] == 0
    folders = [tmp_path / name / "small" for name in ("alone", "killed")]
    figures = [(folder / "metrics.json").read_bytes() for folder in folders]
    assert figures[0] == figures[1]
    histories = [json.loads((folder / "training.json").read_text()) for folder in folders]
    for record in histories:
        for epoch in record["history"]:
            epoch.pop("seconds")
    assert histories[0]["history"] == histories[1]["history"]
    assert histories[0] == histories[1] and len(histories[0]["history"]) == 6
