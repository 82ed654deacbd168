"""A run that starts from another of the same data: Ada-Retrieval on a backbone of its own run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from feature_store.errors import ConfigError
from pipelines.metrics_table import metrics_table
from pipelines.run import run
from pipelines.train import train
from recsys.config import RunConfig, parse_config
from recsys.runs.finished import Run
from recsys.runs.phases import phases_of, start_of
from recsys.runs.same_training import check_same_training

BACKBONE = {"name": "sasrec", "width": 16, "blocks": 1, "negatives": 0, "max_length": 10}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "name": "base",
        "seed": 1,
        "output": str(tmp_path_factory.mktemp("stages")),
        "data": {"source": "synthetic", "users": 60, "items": 300, "clusters": 6, "events": 12},
        "split": {"protocol": "leave_one_out"},
        "retriever": BACKBONE,
        "reader": {"batch_size": 32},
        "trainer": {"epochs": 2, "device": "cpu", "refit": True},
        "baselines": ["popularity"],
        "evaluation": {"ks": [10], "replicates": 100},
        "tracking": {"enabled": False},
    }


@pytest.fixture(scope="module")
def base(tree: dict[str, Any]) -> Run:
    return run(tree)


def ada(tree: dict[str, Any], base: Run) -> dict[str, Any]:
    retriever = {"name": "ada_retrieval", "backbone": BACKBONE, "list_size": 10}
    trainer = tree["trainer"] | {"start_from": str(base.folder)}
    return tree | {"name": "ada", "retriever": retriever, "trainer": trainer}


def starts(config: RunConfig) -> list[Path]:
    """The checkpoints that each phase starts from."""
    found = [start_of(config, phase) for phase in phases_of(config.trainer)]
    return [start.checkpoints for start in found if start is not None]


def test_a_stage_starts_from_weights_that_have_seen_no_more(
    tree: dict[str, Any], base: Run
) -> None:
    """Validation must not be judged by weights that have learned it."""
    config = parse_config(ada(tree, base))
    assert starts(config) == [base.folder / "checkpoints", base.folder / "checkpoints_refit"]
    later = parse_config(ada(tree, base), ["split.min_user_events=2"])
    assert starts(later) == [base.folder / "checkpoints_refit"] * 2
    once = parse_config(tree, ["name=once", "trainer.refit=false"])
    train(once)
    alone = parse_config(ada(tree, base), [f"trainer.start_from={once.folder}"])
    assert starts(alone) == [once.folder / "checkpoints"] * 2


def test_ada_retrieval_runs_to_its_bundle(tree: dict[str, Any], base: Run) -> None:
    found = run(ada(tree, base))
    answers = found.recommend(found.recommender.users()[:3], k=10)
    assert answers.groupby("user")["item"].nunique().tolist() == [10, 10, 10]
    assert found.recommender.generator.record.merge == "rounds"
    assert (found.folder / "report.html").exists()


def test_checkpoints_older_than_an_option_are_of_the_same_training(
    tree: dict[str, Any], base: Run
) -> None:
    """What did not exist then has its default now, and any other value is another training."""
    marker = base.folder / "checkpoints" / "training.toml"
    whole = marker.read_text()
    lines = [line for line in whole.splitlines() if not line.startswith("temperature")]
    assert len(lines) == len(whole.splitlines()) - 1
    marker.write_text("\n".join(lines))
    check_same_training(parse_config(tree))
    with pytest.raises(ConfigError, match=r"retriever\.temperature was 0\.05, now 0\.1"):
        check_same_training(parse_config(tree, ["retriever.temperature=0.1"]))
    marker.write_text(whole)


def test_cold_users_and_items_are_in_the_table(base: Run) -> None:
    """Beside the figures of all, on a terminal of 80 columns, whole."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(metrics_table(base.results))
    lines = console.export_text().splitlines()
    (head,) = (place for place, line in enumerate(lines) if "NDCG@10" in line)
    assert lines[head - 1].split() == ["cold", "cold"]
    assert lines[head].split()[-2:] == ["users", "items"]
    (row,) = (line for line in lines if line.strip().startswith("sasrec"))
    slices = base.results["retrievers"]["sasrec"]["slices"]
    cold = [slices[slicing]["cold"]["metrics"]["Recall@10"] for slicing in ("users", "items")]
    assert row.split()[-2:] == [f"{recall:.4f}" for recall in cold]
