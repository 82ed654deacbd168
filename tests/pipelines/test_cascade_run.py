"""A cascade of finished runs: measured, exported and asked as any other run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from feature_store.errors import ConfigError, DataError
from pipelines.evaluate import evaluate
from pipelines.ingest import ingest_log
from pipelines.run import run
from pipelines.train import train
from recsys.config import RunConfig, parse_config
from recsys.data.block import Block
from recsys.distributed import join
from recsys.export.requests import raw_requests
from recsys.lists.pairs import Pairs
from recsys.rankers.base import Ranker
from recsys.rankers.hcn import HCN
from recsys.report.comparison import compare
from recsys.runs.finished import Run
from recsys.runs.fit import trained_model
from recsys.runs.leaks import check_not_learnt
from recsys.runs.learn import trainer_of
from recsys.runs.prepare import prepare
from recsys.runs.steps import BUNDLE, FIGURES
from recsys.runs.teacher import teacher_of
from recsys.runs.weights import training_of
from recsys.serving.explaining import explain_item, fate
from recsys.serving.recommender import Recommender

Tree = dict[str, Any]
TreeOf = Callable[..., Tree]
Drawing = Callable[[], AbstractContextManager[None]]
Ask = Callable[..., tuple[Any, str, str]]
SPLIT = {"protocol": "global_time", "event_types": ["click", "purchase"]}
DCN = {"name": "dcn", "width": 4, "hidden": [8], "cross_layers": 1}
_FINE = {
    "ranker": {**DCN, "hidden": [16]},
    "seed": 5,
    "split": {"protocol": "global_time"},
    "baselines": None,
}


def plain(tree: Tree, name: str, **sections: Any) -> Tree:
    tree = {**tree, "name": name, **sections}
    return {key: part for key, part in tree.items() if part is not None}


@pytest.fixture(scope="module")
def base(tree_of: TreeOf, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return tree_of(
        tmp_path_factory.mktemp("funnel"),
        split=SPLIT,
        retriever=None,
        reader={"batch_size": 256},
        trainer={"epochs": 1, "device": "cpu"},
        evaluation={"ks": [5, 10], "replicates": 100},
    )


@pytest.fixture(scope="module")
def parts(base: Tree) -> dict[str, Path]:
    """Two retrievers, and two rankers of all that was shown, by the same moments."""
    alone = {"baselines": ["popularity"]}
    ranker = {"split": {"protocol": "global_time"}, "baselines": None}
    trees = [
        plain(base, "knn", retriever={"name": "item_knn"}, **alone),
        plain(base, "popular", retriever={"name": "popularity"}, **alone),
        plain(base, "coarse", ranker=DCN, **ranker),
        plain(base, "fine", **_FINE),
    ]
    configs = [parse_config(tree) for tree in trees]
    ingest_log(configs[0])
    for config in configs:
        train(config)
    evaluate(configs[0])
    return {config.name: config.folder for config in configs}


def cascade_tree(base: Tree, parts: dict[str, Path], name: str = "funnel", **options: Any) -> Tree:
    cascade = {
        "generators": {
            "knn": {"run": str(parts["knn"]), "budget": 12},
            "popular": {"run": str(parts["popular"]), "budget": 9},
        },
        "coarse": {"run": str(parts["coarse"]), "keep": 11},
        "fine": {"run": str(parts["fine"])},
        **options,
    }
    cascade = {key: part for key, part in cascade.items() if part is not None}
    return plain(base, name, cascade=cascade, baselines=["popularity"])


@pytest.fixture(scope="module")
def finished(base: Tree, parts: dict[str, Path], drawing: Drawing) -> Run:
    with drawing():
        return run(cascade_tree(base, parts, order_by="revenue"))


def test_figures_tell_what_each_stage_leaves(finished: Run) -> None:
    figures = finished.results["retrievers"]
    assert list(figures) == ["cascade", "cascade_knn", "cascade_popular", "popularity"]
    funnel = {stage["stage"]: stage for stage in figures["cascade"]["funnel"]}
    assert list(funnel) == ["knn", "popular", "candidates", "coarse", "fine@10"]
    recall = {name: stage["metrics"]["Recall"] for name, stage in funnel.items()}
    assert max(recall["knn"], recall["popular"]) <= recall["candidates"]
    assert recall["candidates"] >= recall["coarse"] >= recall["fine@10"]
    assert recall["fine@10"] == figures["cascade"]["metrics"]["Recall@10"]
    assert funnel["knn"]["items"] <= 12 and funnel["coarse"]["items"] <= 11
    rows = pd.read_parquet(finished.files.lists_of("cascade"))
    for name, value in recall.items():
        assert rows[f"stage:{name}:Recall"].mean() == pytest.approx(value)
        money = rows[f"stage:{name}:GMV"].sum() / rows["value"].sum()
        assert money == pytest.approx(funnel[name]["metrics"]["GMVCapture"])
    assert "funnel" not in figures["cascade_knn"]


def test_a_generator_alone_is_its_own_run_cut_at_its_budget(
    finished: Run, parts: dict[str, Path]
) -> None:
    alone = finished.results["retrievers"]["cascade_knn"]["metrics"]
    own = Run(parts["knn"]).results["retrievers"]["item_knn"]["metrics"]
    assert alone == own


def test_seconds_of_each_stage_stand_beside_the_figures(finished: Run) -> None:
    latency = json.loads(finished.files.seconds.read_text())["cascade"]["latency_ms"]
    assert list(latency) == ["knn", "popular", "candidates", "coarse", "fine", "all stages"]
    for taken in latency.values():
        assert 0 < taken["p50"] <= taken["p99"]
    assert "latency_ms" not in finished.files.metrics.read_text()


def test_the_report_draws_the_funnel(finished: Run) -> None:
    assert "funnel" in {path.stem for path in finished.files.plots.iterdir()}
    page = finished.files.report.read_text()
    assert "What is left after each stage" in page


def test_the_bundle_answers_as_the_models_do(finished: Run) -> None:
    """Without the items of a history, in the same order, with the same expected revenue."""
    manifest = json.loads((finished.bundle / "manifest.json").read_text())
    assert {name: part["kind"] for name, part in manifest["parts"].items()} == {
        "cascade": "cascade",
        "generator_knn": "generator",
        "generator_popular": "generator",
        "coarse": "ranker",
        "fine": "ranker",
    }
    assert manifest["parts"]["cascade"]["about"]["metrics"]["Recall@10"] is not None
    rows = pd.read_parquet(finished.files.lists_of("cascade")).set_index("user")
    golden = pq.read_table(finished.bundle / "parts" / "cascade" / "golden.parquet").to_pydict()
    config = parse_config(finished.config)
    model, examples = trained_model(config)
    cascade: Any = model
    cascade.prepare(examples.candidates())
    requests = pq.read_table(examples.folder / "test.parquet").slice(0, 40)
    batch = Block.of(requests.select([asked.name for asked in cascade.inputs])).to_batch()
    lists = cascade.retrieve(batch, 10, Pairs.of_padded(batch.padded("history")))
    raw = raw_requests(examples, requests, cascade.inputs)
    answers = finished.recommender.recommend_table(raw, k=10).to_pandas()
    vocabulary = examples.vocabulary("item_id")
    for row, (ids, scores) in enumerate(zip(lists.ids, lists.scores, strict=True)):
        kept = ids != 0
        theirs = answers[answers["user"] == raw["user_id"][row].as_py()]
        assert list(theirs["item"]) == vocabulary.decode(ids[kept].numpy()).to_pylist()
        np.testing.assert_allclose(theirs["score"], scores[kept].numpy(), rtol=1e-4)
        user = raw["user_id"][row].as_py()
        if user in rows.index:  # who is judged got this very list
            assert list(rows.loc[user, "recommended"]) == list(theirs["item"])
    assert len(golden["expected_items"]) == 16


def test_it_is_asked_on_the_command_line(recsys: Ask, finished: Run) -> None:
    status, out, errors = recsys("recommend", finished.folder, "--user", 7, "-k", 3)
    assert status == 0 and len(out.splitlines()) == 4, errors
    alone = Recommender.open(finished.bundle, part="generator_knn")
    assert alone.generator.record.about.run == "knn"
    status, _, _ = recsys("score", finished.folder, "--requests", finished.files.metrics)
    assert "has 2 parts of kind ranker" in status
    unknown = finished.recommend([10**9], k=5)
    assert len(unknown) == 5 and not unknown["fallback"].any()  # popularity answers


def test_nothing_is_done_again_and_another_part_makes_all_of_it_anew(
    base: Tree, parts: dict[str, Path], finished: Run
) -> None:
    config = parse_config(finished.config)
    assert FIGURES.is_done(config) and BUNDLE.is_done(config)
    before = training_of(finished.files)
    assert before == finished.results["training"]
    record = parts["fine"] / "training.json"
    whole = record.read_text()
    record.write_text(whole.replace('"epoch": 1', '"epoch": 1, "more": 1', 1))
    assert training_of(finished.files) != before
    assert not FIGURES.is_done(config)
    with pytest.raises(DataError, match="was trained again since cascade was measured"):
        compare([str(finished.folder), f"{finished.folder}:popularity"])
    record.write_text(whole)
    assert FIGURES.is_done(config)
    both = compare([str(finished.folder), f"{finished.folder}:popularity"])
    assert both.users == finished.results["retrievers"]["cascade"]["users"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fine": {"run": "nowhere"}}, r"cascade\.fine: nowhere is not a run"),
        ({"fine": "knn"}, r"cascade\.fine: .* is a run of a item_knn, not of a ranker"),
        ({"generators": {"a": "fine"}}, r"generators\.a: .* of a dcn, not of a retriever"),
        ({"fine": None}, "coarse keeps what a fine ranker orders"),
        ({"generators": {"fine": "knn"}}, "what another stage is called"),
        ({"generators": {}}, "cascade.generators"),
        ({"order_by": "profit"}, "needs a cost of items"),
        ({"diversity": {"category": "colour", "weight": 1.0}}, "'colour' is none of"),
        ({"fine": {"run": "fine", "task": "buys"}}, "'buys' is none of its tasks"),
    ],
)
def test_mistakes_are_told_with_their_place(
    base: Tree, parts: dict[str, Path], change: dict[str, Any], message: str
) -> None:
    def spelled(value: Any) -> Any:
        if isinstance(value, str) and value in parts:
            return {"run": str(parts[value])}
        if isinstance(value, dict) and value.get("run") in parts:
            return {**value, "run": str(parts[value["run"]])}
        return value

    change = {
        key: {name: spelled(part) for name, part in value.items()}
        if key == "generators"
        else spelled(value)
        for key, value in change.items()
    }
    with pytest.raises((ConfigError, DataError), match=message):
        config = parse_config(cascade_tree(base, parts, "wrong", **change))
        prepare(config)
        trained_model(config)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"test_days": 20}, r"was trained on [\d,]+ events that are the test"),
        ({"protocol": "leave_one_out"}, r"was trained on [\d,]+ events that are the test"),
        (
            {"event_types": ["purchase"]},
            "learned from lists .history. of events click, purchase, and here they hold events pur",
        ),
    ],
)
def test_a_part_must_not_have_learned_what_is_asked_for(
    base: Tree, parts: dict[str, Path], split: dict[str, Any], message: str
) -> None:
    """A test that is longer, or of other events, or lists of others."""
    if split.get("test_days"):
        split = {**SPLIT, "test_days": 20, "validation_days": 3}
    tree = cascade_tree(base, parts, "leaky")
    config = parse_config(tree | {"split": {**SPLIT, **split}})
    prepare(config)
    with pytest.raises((DataError, ConfigError), match=message):
        trained_model(config)


def test_other_events_of_the_time_of_the_test_are_no_less_told(
    base: Tree, parts: dict[str, Path]
) -> None:
    """Who saw the impressions of those days knows what was clicked, though no event is shared."""
    part = parse_config(
        plain(base, "shown", retriever={"name": "popularity"}, baselines=[])
        | {"split": {"protocol": "global_time", "event_types": ["impression"]}}
    )
    asked = parse_config(cascade_tree(base, parts, "late"))
    known, same = prepare(part), prepare(asked)
    check_not_learnt(asked, same, "cascade.a", part, known)
    tree = cascade_tree(base, parts, "longer") | {"split": {**SPLIT, "test_days": 20}}
    longer = parse_config(tree)
    with pytest.raises(DataError, match=r"cascade\.a: .*shown was trained on [\d,]+ events"):
        check_not_learnt(longer, prepare(longer), "cascade.a", part, known)


def test_a_part_that_was_not_trained_is_refused(base: Tree, parts: dict[str, Path]) -> None:
    stopped = parts["fine"].parent / "stopped"
    shutil.copytree(parts["fine"], stopped)
    (stopped / "training.json").unlink()
    config = parse_config(cascade_tree(base, parts, "early", fine={"run": str(stopped)}))
    prepare(config)
    with pytest.raises(DataError, match=r"fine: .*stopped holds a training that was stopped"):
        trained_model(config)
    shutil.rmtree(stopped / "checkpoints")
    with pytest.raises(DataError, match=r"fine: .*stopped was not trained: run `recsys run"):
        trained_model(config)


def test_what_has_no_weights_of_its_own_is_neither_searched_nor_planned(
    recsys: Ask, finished: Run
) -> None:
    assert "this config has a cascade" in recsys("tune", finished.folder)[0]
    assert "is made of finished runs" in recsys("plan", finished.folder)[0]
    assert recsys("train", finished.folder)[0] == 0


def test_an_item_is_explained(recsys: Ask, finished: Run) -> None:
    """Of every item of the catalogue it is told what the stages really did with it."""
    recommender = finished.recommender
    user = recommender.users()[3]
    asked, seen = recommender.asked_of(recommender.requests_of([user]))
    cascade: Any = recommender.finder
    stages = {stage.name: stage for stage in cascade.stages(asked, 5, seen)}
    shown = recommender.recommend([user], k=5)["item"].tolist()
    had = recommender.finder.item_ids.take(pa.array(seen[0][seen[0] >= 0].numpy())).to_pylist()
    fates: set[str] = set()
    for place, item in enumerate(recommender.finder.item_ids.to_pylist()):
        if item in had:
            with pytest.raises(DataError, match="has had item"):
                explain_item(recommender, user, item)
            continue
        opinions = explain_item(recommender, user, item, k=5)
        told = {row["stage"]: row for row in opinions.to_pylist()}
        for name, stage in stages.items():
            kept = place in (stage.items[0][:5] if name == "fine" else stage.items[0])
            assert told[name]["kept"] is kept, (item, name)
            if kept:
                column = stage.items[0].tolist().index(place)
                assert told[name]["rank"] == column + 1
                assert told[name]["score"] == pytest.approx(float(stage.scores[0, column]))
        assert told["fine"]["kept"] is (item in shown)
        assert 0 <= told["coarse"]["score"] <= 1 and told["fine"]["score"] >= 0
        lost = told["candidates"]["kept"] and not told["coarse"]["kept"]
        assert not lost or told["coarse"]["rank"] > 11
        fates.add(re.sub(r"\(.*?\)|[\d]+", "", fate(opinions, 5)).split(", ")[-1])
    assert len(fates) == 4, fates  # never found, dropped, behind the list, shown
    status, out, errors = recsys("explain", finished.folder, "-u", user, "-i", shown[0])
    assert status == 0 and out.splitlines()[0] == "stage,rank,of,score,kept"
    assert f"item {shown[0]} for user {user}: found by " in errors
    assert "it is shown at rank 1" in errors
    status, _, _ = recsys("explain", finished.folder, "-u", user, "-i", 10**9)
    assert "is none of the" in status and "\n" not in status


def test_a_coarse_ranker_learns_from_a_finished_run(
    base: Tree, parts: dict[str, Path], tmp_path: Path
) -> None:
    def pupil(teacher: Path) -> RunConfig:
        ranker = {"name": "hcn", "width": 4, "hidden": [8], "teacher": str(teacher)}
        split = {"protocol": "global_time"}
        return parse_config(plain(base, "pupil", split=split, ranker=ranker, baselines=None))

    config = pupil(parts["fine"])
    examples = prepare(config)
    with join("cpu") as group:
        trainer = trainer_of(config, examples, group, tmp_path / "checkpoints")
        (model,) = (part for part in trainer.model.modules() if isinstance(part, HCN))
        (teacher,) = model._teachers
        fine, _ = trained_model(parse_config(plain(base, "fine", **_FINE)))
        batch = next(iter(trainer.reader))
        items = batch.id("item_id").unsqueeze(1)
        expected = cast(Ranker, fine).logits(fine.inputs_of(batch), items)[:, :, 0]
        torch.testing.assert_close(teacher.scoring(batch)(items), expected)
        with pytest.raises(ConfigError, match=r"ranker\.teacher: .* is no run of a ranker"):
            teacher_of(pupil(parts["knn"]), examples, group)
        with pytest.raises(DataError, match=r"ranker\.teacher: .* is not a run"):
            teacher_of(pupil(tmp_path), examples, group)
        stopped = tmp_path / "stopped"
        shutil.copytree(parts["fine"], stopped)
        (stopped / "training.json").unlink()
        with pytest.raises(DataError, match=r"ranker\.teacher: .* was stopped: run `"):
            teacher_of(pupil(stopped), examples, group)
