"""A ranker's run end to end, its programs, and how it is looked into."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import StringIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import tomli_w
from forks import Forks

from feature_store.errors import ConfigError
from pipelines.run import resolve, run
from pipelines.train import train
from recsys.config import RunConfig, parse_config
from recsys.evaluation import pointwise
from recsys.rankers.base import Ranker
from recsys.runs.calibration import curves_of
from recsys.runs.finished import Run
from recsys.runs.fit import trained_model
from recsys.statistics.calibration import Curve

Tree = dict[str, Any]
TreeOf = Callable[..., Tree]
Drawing = Callable[[], AbstractContextManager[None]]
Ask = Callable[..., tuple[Any, str, str]]
RANKER = {
    "retriever": None,
    "baselines": None,
    "ranker": {"name": "dcn", "width": 8, "hidden": [16]},
    "split": {"protocol": "global_time"},
    "reader": {"batch_size": 256},
    "trainer": {"epochs": 3, "device": "cpu"},
    "embeddings": {"layout": "unified", "budget_mb": 0.02},
    "evaluation": {"replicates": 100},
}


def ranker_tree(tree_of: TreeOf, output: Path, **sections: Any) -> Tree:
    tree = tree_of(output, **{**RANKER, **sections})
    return {name: part for name, part in tree.items() if part is not None}


@pytest.fixture(scope="module")
def tree(tree_of: TreeOf, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return ranker_tree(tree_of, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def finished(tree: Tree, drawing: Drawing) -> Run:
    with drawing():
        return run(tree)


@pytest.fixture(scope="module")
def config(tree: Tree, finished: Run) -> Path:
    path = finished.folder.parent / "ranker.toml"
    path.write_text(tomli_w.dumps(tree))
    return path


def test_figures_are_those_of_the_rows_beside_them(finished: Run) -> None:
    part = finished.results["rankers"]["dcn"]
    rows = pd.read_parquet(finished.folder / "per_row" / "dcn.parquet")
    assert len(rows) == part["rows"] and rows["user"].nunique() == part["users"]
    assert set(rows["label"]) == {0.0, 1.0}
    auc = pointwise.auc(rows["label"], rows["probability"])
    assert finished.metrics.loc["dcn", "AUC"] == pytest.approx(auc, abs=1e-6)
    for name, value in part["metrics"].items():
        low, high = part["ci95"][name]
        assert low <= value <= high or name == "ECE"
    assert part["calibration"]["rows"] and sum(part["calibration"]["rows"]) == part["rows"]
    assert "candidates" not in finished.results
    assert finished.results["protocol_parts"]["labels.positive_from"] is None


def test_the_report_shows_them(finished: Run) -> None:
    html = (finished.folder / "report.html").read_text()
    auc = finished.metrics.loc["dcn", "AUC"]
    assert f'data-metric="AUC" data-value="{auc}"' in html
    assert "Calibration" in html and "Rows judged" in html and "Candidates ranked" not in html
    plots = {path.stem for path in (finished.folder / "plots").iterdir()}
    assert plots >= {"calibration", "training_loss", "validation"}


def test_validation_chooses_by_auc(finished: Run) -> None:
    record = json.loads((finished.folder / "training.json").read_text())
    best = max(record["history"], key=lambda epoch: epoch["AUC"])
    assert record["best_epoch"] == best["epoch"] and record["best"] == best["AUC"]


def test_a_run_can_go_on_for_more_epochs(tree: Tree, tmp_path: Path) -> None:
    """And ends where one that was as long from the start does."""
    short = {**tree, "output": str(tmp_path), "store": str(store_of(tree))}
    train(resolve(short, ["name=a"]))
    longer = run(short, ["name=a", "trainer.epochs=5"], resume=True)
    at_once = run(short, ["name=b", "trainer.epochs=5"])
    figures = [one.results["rankers"]["dcn"]["metrics"] for one in (longer, at_once)]
    assert figures[0] == figures[1]
    with pytest.raises(ConfigError, match=r"trainer\.optimizer\.learning_rate was .*, now 0\.5"):
        run(short, ["name=a", "trainer.optimizer.learning_rate=0.5"], resume=True)


def store_of(tree: Tree) -> Path:
    return parse_config(tree).store_folder


@pytest.fixture(scope="module")
def sesa(tree: Tree, tmp_path_factory: pytest.TempPathFactory, drawing: Drawing) -> Run:
    """A run of a ranker that explains itself, calibrated, whose epoch is chosen by its loss."""
    folder = tmp_path_factory.mktemp("sesa")
    again = {**tree, "output": str(folder), "store": str(store_of(tree))}
    again["ranker"] = {"name": "sesa", "concepts": "keywords", "hidden": [8], "width": 8}
    with drawing():
        return run(again, ["trainer.metric=LogLoss", "calibration.kind=temperature"])


def test_less_loss_is_better(sesa: Run) -> None:
    record = json.loads((sesa.folder / "training.json").read_text())
    assert record["best"] == min(epoch["LogLoss"] for epoch in record["history"])


def test_the_report_shows_what_concepts_contribute(sesa: Run, finished: Run) -> None:
    """Ten rows of the test, the most probable first, whose reasons sum to their logits."""
    told = json.loads((sesa.folder / "explanations.json").read_text())
    html = (sesa.folder / "report.html").read_text()
    rows = pd.read_parquet(sesa.folder / "per_row" / "sesa.parquet")
    assert told["rows"] == min(1024, len(rows))
    assert len(told["examples"]) == html.count("data-item=") == 10
    sizes = [concept["size"] for concept in told["concepts"]]
    assert sizes == sorted(sizes, reverse=True)
    areas = [concept["auc"] for concept in told["concepts"] if concept["auc"] is not None]
    assert told["concept_auc"] == pytest.approx(sum(areas) / len(areas))
    assert f"it is {told['concept_auc']:.4f} on average" in html
    probabilities = [example["probability"] for example in told["examples"]]
    assert probabilities == sorted(probabilities, reverse=True)
    for example in told["examples"]:
        same = rows[(rows["user"] == example["user"]) & (rows["item"] == example["item"])]
        assert (same["probability"] - example["probability"]).abs().min() < 1e-5
        values = [reason["value"] for reason in example["reasons"]]
        assert values == sorted(values, key=abs, reverse=True) and len(values) == 6
        logit = sum(values) + example["others"] + example["bias"] + example["calibration"]
        assert 1 / (1 + math.exp(-logit)) == pytest.approx(example["probability"], abs=1e-5)
        assert abs(example["calibration"]) > 1e-3
    assert not (finished.folder / "explanations.json").exists()
    assert "Explanations" not in (finished.folder / "report.html").read_text()


def test_a_logit_is_explained_on_the_command_line(
    recsys: Ask, finished: Run, sesa: Run, tmp_path: Path
) -> None:
    rows = pd.read_parquet(sesa.folder / "per_row" / "sesa.parquet")
    user, item = rows.loc[0, ["user", "item"]]
    asked = ("explain", sesa.folder, "-u", user, "-i", item)
    status, out, errors = recsys(*asked, "-k", 3)
    assert status == 0
    told = pd.read_csv(StringIO(out))
    assert told.columns.tolist() == ["kind", "concept", "contribution"]
    assert told["kind"].tolist() == [*["concept"] * 3, "others", "bias", "calibration"]
    probability = 1 / (1 + math.exp(-told["contribution"].sum()))
    assert f"item {item} for user {user}: probability {probability:.4f}" in errors
    assert recsys(*asked, "--out", tmp_path / "reasons.parquet")[0] == 0
    assert pd.read_parquet(tmp_path / "reasons.parquet")["contribution"].sum() == pytest.approx(
        told["contribution"].sum()
    )
    for folder, other, message in (
        (sesa.folder, 10**9, f"unknown item: {10**9}"),
        (finished.folder, item, "the logits of dcn are not made of concepts"),
    ):
        status, _, _ = recsys("explain", folder, "-u", user, "-i", other)
        assert message in status and "\n" not in status


def test_pairs_are_scored_on_the_command_line(
    recsys: Ask, finished: Run, config: Path, tmp_path: Path
) -> None:
    rows = pd.read_parquet(finished.folder / "per_row" / "dcn.parquet").head(20)
    pairs = rows.rename(columns={"user": "user_id", "item": "item_id"})[["user_id", "item_id"]]
    pairs.to_parquet(tmp_path / "pairs.parquet")
    asked = ("score", finished.folder, "--requests", tmp_path / "pairs.parquet")
    assert recsys(*asked, "--out", tmp_path / "scored.parquet")[0] == 0
    found = pd.read_parquet(tmp_path / "scored.parquet")
    assert found["probability"].between(0, 1).all() and len(found) == 20
    status, out, _ = recsys(*asked, "--expect", "revenue")
    assert status == 0 and "probability,expected_revenue" in out
    status, _, _ = recsys(*asked, "--expect", "profit")
    assert "knows no cost of items" in status and "\n" not in status
    status, _, _ = recsys("score", finished.folder, "--requests", tmp_path / "none.parquet")
    assert "none.parquet cannot be read" in status
    status, _, _ = recsys("recommend", finished.folder, "--user", "1")
    assert "has no generator" in status and "(a ranker)" in status and "recsys score" in status


def test_scores_and_reasons_are_of_what_a_store_knows_of_users(
    recsys: Ask, sesa: Run, tmp_path: Path
) -> None:
    """The bundle's own once it is synced, and others when it has forgotten a user."""
    user, item = pd.read_parquet(sesa.folder / "per_row" / "sesa.parquet").loc[0, ["user", "item"]]
    pairs, url = tmp_path / "pairs.parquet", f"sqlite:///{tmp_path}/users.db"
    pd.DataFrame({"user_id": [user], "item_id": [item]}).to_parquet(pairs)
    ways = (
        ("score", sesa.folder, "--requests", pairs),
        ("explain", sesa.folder, "-u", user, "-i", item),
    )
    own = [recsys(*asked)[1] for asked in ways]
    assert all("is not there" in recsys(*asked, "--users", url)[0] for asked in ways)
    assert recsys("online", "sync", sesa.folder, url)[0] == 0
    assert [recsys(*asked, "--users", url)[1] for asked in ways] == own
    assert recsys("online", "forget", url, "-u", user)[0] == 0
    others = [recsys(*asked, "--users", url)[1] for asked in ways]
    assert all(alike != other for alike, other in zip(own, others, strict=True))


def test_tables_are_looked_into(recsys: Ask, finished: Run, config: Path) -> None:
    status, out, errors = recsys("embeddings", "inspect", finished.folder)
    assert status == 0, errors
    assert "layout unified, 0.020 MB" in out and "dead" in out
    line = next(line for line in out.splitlines() if "user_id" in line)
    assert line.split()[1:4] == ["151", "8", "2"]
    status, _, _ = recsys("embeddings", "inspect", finished.folder, "name=nothing")
    assert "holds no checkpoint: run `recsys train" in status


def test_a_cluster_is_planned_that_is_not_there(recsys: Ask, config: Path) -> None:
    large = "embeddings.tables.user_id.rows=4000000000"
    layout = ["embeddings.layout=per_feature", "ranker.width=16", large]
    asked = ("plan", config, *layout, "--world-size", 8, "--hosts", 2)
    status, out, errors = recsys(*asked, "--hbm", 80)
    assert status == 0, errors
    assert "it fits" in out and "8 processes on 2 hosts, 80.0 GB each" in out
    user = next(line for line in out.splitlines() if "user_id" in line)
    shape, where, sizes = "4,000,000,000 x 16", "by rows", "256 GB 16 GB 34 GB"
    assert " ".join(user.split()[1:]) == f"{shape} {where} {sizes}"
    picture = next(line for line in out.splitlines() if line.startswith("picture: "))
    assert Path(picture.removeprefix("picture: ")).read_bytes().startswith(b"\x89PNG")
    status, out, _ = recsys(*asked, "--hbm", 20)
    assert status.startswith("recsys: process 0 would hold 34")
    missing = 4e9 / 8 * (16 * 4 + 4) / 1e9 - 20 * 0.85
    assert f"{missing:.1f}"[:4] in status and "it fits on --world-size 32" in status
    status, _, _ = recsys("plan", config, "--world-size", 8, "--hosts", 3)
    assert "8 processes cannot be spread evenly over 3 hosts" in status


def test_quantised_tables_are_told_of(
    recsys: Ask, finished: Run, config: Path, tmp_path: Path
) -> None:
    status, _, errors = recsys("export", config, "export.quantisation.dtype=int8")
    assert status == 0, errors
    manifest = json.loads((finished.bundle / "manifest.json").read_text())
    quantisation = manifest["parts"]["ranker"]["quantisation"]
    (table,) = quantisation["tables"].values()
    assert (table["requested"], table["dtype"]) == ("int8", "int8")
    assert quantisation["quantised"] > 0.4
    status, _, _ = recsys("export", config, "export.quantisation.tables.itme=int8")
    assert "export.quantisation.tables.itme: no such table; there are: unified" in status


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("calibration.kind=isotone", "calibration.kind"),
        ("trainer.metric=NDCG@10", "'NDCG@10' is not measured of rankers; choose one of: AUC"),
        ("baselines=['popularity']", "a ranker has none"),
        ("ranker.user_features=['cuontry']", "ranker.user_features names cuontry; the log has"),
        ("labels.leave_out=[0.0, 1.0]", "split leaves no"),
        ("embeddings.tables.user.probes=3", "embeddings.tables.user: no such table"),
        ("embeddings.tables.user_id.size=3", "unknown key embeddings.tables.user_id.size"),
    ],
)
def test_mistakes_are_one_line(recsys: Ask, config: Path, change: str, message: str) -> None:
    status, _, _ = recsys("train", config, change, "name=wrong")
    assert message in str(status) and "\n" not in str(status)


def test_a_ranker_makes_no_lists(recsys: Ask, finished: Run, config: Path, tmp_path: Path) -> None:
    status, _, _ = recsys("compare", finished.folder, f"{finished.folder}:popularity")
    assert "has no ranker 'popularity': it has dcn" in status
    status, _, _ = recsys("tune", config)
    assert "this config has a ranker" in status


def test_two_processes_leave_what_one_does(
    tree: Tree, finished: Run, apart: Forks, tmp_path: Path
) -> None:
    """The whole job, tables split by rows over both."""
    path = tmp_path / "run.toml"
    path.write_text(tomli_w.dumps(tree))
    store = f"store={store_of(tree)}"
    split = ["embeddings.shard_above_mb=0", "trainer.optimizer.sharded=adagrad", "reader.lanes=2"]
    options = [*split, f"output={tmp_path}", store, "trainer.epochs=1"]
    alone = run(tree, [*options, "name=on1"])
    done = apart.recsys("run", path, *options, "name=on2", processes=2)
    assert done.codes == [0, 0], done.err[-3000:]
    assert "verified" in done.err
    figures = [one.results["rankers"]["dcn"]["metrics"] for one in (alone, Run(tmp_path / "on2"))]
    assert figures[1] == pytest.approx(figures[0], abs=1e-4)


def test_a_damaged_checkpoint_is_told_in_a_line(recsys: Ask, tree: Tree, tmp_path: Path) -> None:
    again = {**tree, "output": str(tmp_path), "store": str(store_of(tree))}
    config = resolve(again, ["trainer.epochs=2"])
    train(config)
    folder = config.folder / "checkpoints"
    newest = max(folder.glob("step-*"))
    data = bytearray((newest / "__0_0.distcp").read_bytes())
    data[len(data) // 2] ^= 1
    (newest / "__0_0.distcp").write_bytes(data)
    path = tmp_path / "run.toml"
    path.write_text(tomli_w.dumps(again))
    status, _, _ = recsys("train", path, "trainer.epochs=3", "--resume")
    assert f"{newest} cannot be loaded: __0_0.distcp was altered" in status
    assert "remove the folder to use an earlier checkpoint" in status
    shutil.rmtree(newest)
    assert recsys("train", path, "trainer.epochs=3", "--resume")[0] == 0


@pytest.fixture
def calibrated(tree: Tree, finished: Run, tmp_path: Path) -> tuple[Run, RunConfig]:
    """The finished run, calibrated without training again."""
    folder = tmp_path / finished.folder.name
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns("bundle", ".lock"))
    there = {**tree, "output": str(tmp_path), "store": str(store_of(tree))}
    there["calibration"] = {"kind": "isotonic"}
    return run(there), parse_config(there)


def test_a_calibrated_ranker_is_so_everywhere(
    finished: Run, calibrated: tuple[Run, RunConfig]
) -> None:
    done, _ = calibrated
    before, part = (one.results["rankers"]["dcn"] for one in (finished, done))
    assert "uncalibrated" not in before
    assert part["uncalibrated"] == pytest.approx(before["metrics"], abs=1e-6)
    assert part["metrics"]["AUC"] == pytest.approx(before["metrics"]["AUC"], abs=1e-4)
    assert part["metrics"]["LogLoss"] != before["metrics"]["LogLoss"]
    assert "ECE before calibration" in done.files.report.read_text()
    record = json.loads(done.files.calibration.read_text())
    curve = Curve(**{name: tuple(of) for name, of in record["tasks"]["label"].items()})
    rows = [pd.read_parquet(one.files.predictions_of("dcn")) for one in (finished, done)]
    logits = [np.log(of.probability / (1 - of.probability)) for of in rows]
    raw, after = (of.to_numpy() for of in logits)
    assert after == pytest.approx(curve(raw), abs=1e-3)
    assert np.abs(after - raw).max() > 0.01
    golden = pd.read_parquet(next(done.bundle.rglob("golden.parquet")))
    (expected,) = (name for name in golden.columns if "expected" in name)
    assert golden[expected].to_numpy() == pytest.approx(after[: len(golden)], abs=1e-3)


def test_a_curve_of_other_weights_is_fitted_anew(calibrated: tuple[Run, RunConfig]) -> None:
    done, config = calibrated
    model, examples = trained_model(config)
    path, ranker = done.files.calibration, cast(Ranker, model)
    record = json.loads(path.read_text())
    right = curves_of(config, ranker, examples)
    flat = {"label": {"at": [0.0], "values": [0.5], "slopes": [1.0, 1.0]}}
    path.write_text(json.dumps({**record, "tasks": flat}))
    assert curves_of(config, ranker, examples)["label"].values == (0.5,)  # it is read
    for wrong in ({"training": "another"}, {"kind": "temperature"}, {"tasks": {"label": {}}}):
        path.write_text(json.dumps({**record, "tasks": flat, **wrong}))
        assert curves_of(config, ranker, examples) == right
        assert json.loads(path.read_text()) == record
