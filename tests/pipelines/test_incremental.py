"""A log that grows: trainings that start from earlier ones, and known ids that keep their rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from feature_store.errors import ConfigError, DataError
from feature_store.vocabulary import Vocabulary
from pipelines.evaluate import evaluate
from pipelines.run import resolve, run
from pipelines.train import train
from recsys.report.comparison import compare
from recsys.runs.finished import Run
from recsys.training import checkpoint

Tree = dict[str, Any]
MAY, JUNE = datetime(2024, 5, 1), datetime(2024, 6, 1)


def write_month(folder: Path, start: datetime, users: range, items: int, seed: int) -> None:
    """Everyone walks around the ring of items, seven at a time."""
    random, rows = np.random.default_rng(seed), []
    for user in users:
        item, at = int(random.integers(items)), start + timedelta(hours=int(random.integers(100)))
        for _ in range(12):
            rows.append((f"u{user:03d}", f"i{item:02d}", at, float(item % 2)))
            item, at = (item + 7) % items, at + timedelta(days=2)
    frame = pd.DataFrame(rows, columns=["user", "item", "time", "label"])
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(folder / f"{start:%Y-%m}.parquet")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("growing")
    write_month(root / "log", MAY, range(0, 80), 30, seed=1)
    return {
        "name": "may",
        "seed": 1,
        "output": str(root / "runs"),
        "data": {
            "source": "parquet",
            "path": str(root / "log" / "*.parquet"),
            "columns": {"user": "user", "item": "item", "time": "time", "label": "label"},
        },
        "split": {"protocol": "global_time", "validation_days": 3, "test_days": 3},
        "retriever": {"name": "sasrec", "width": 16, "blocks": 1, "dropout": 0.0, "negatives": 0},
        "reader": {"batch_size": 16},
        "trainer": {"epochs": 12, "device": "cpu", "optimizer": {"learning_rate": 0.01}},
        "baselines": ["popularity"],
        "evaluation": {"ks": [1, 10], "replicates": 100},
        "tracking": {"enabled": False},
    }


@pytest.fixture(scope="module")
def runs(tree: Tree) -> dict[str, Run]:
    """May; then June from May's weights, June's window alone, and June from nothing."""
    found = {"may": run(tree)}
    log = Path(tree["data"]["path"]).parent
    write_month(log, JUNE, range(40, 110), 36, seed=2)  # old and new users, six more items
    window = f"trainer.since={JUNE.isoformat()}"
    start = f"trainer.start_from={found['may'].folder}"
    short = [window, "trainer.epochs=1", "trainer.optimizer.learning_rate=0.002"]
    found["warm"] = run(tree, ["name=warm", *short, start])
    found["cold"] = run(tree, ["name=cold", *short])
    return found


def vocabulary(found: Run, table: str = "item") -> Vocabulary:
    return Vocabulary.load(found.folder / "examples" / "vocabulary" / f"{table}.arrow")


def test_known_ids_keep_their_rows_and_new_ones_follow(runs: dict[str, Run]) -> None:
    before, after, cold = (vocabulary(runs[name]) for name in ("may", "warm", "cold"))
    assert after.values.to_pylist() == [f"i{n:02d}" for n in range(36)]
    assert after.fingerprint_of(len(before)) == before.fingerprint
    users = vocabulary(runs["warm"], "user").values.to_pylist()
    assert users == [f"u{n:03d}" for n in range(110)]
    assert cold.values.equals(after.values)  # in order of ids here as there


def test_only_the_later_window_is_trained_on(runs: dict[str, Run]) -> None:
    for name in ("warm", "cold"):
        table = pq.read_table(runs[name].folder / "examples" / "train.parquet")
        for times in table["history_time"].to_pylist():  # and the event before, to learn from
            assert times[1] >= JUNE.replace(tzinfo=UTC).timestamp()
        assert table.num_rows == 70


def test_a_warm_start_is_ahead_of_a_cold_one_on_the_same_test(runs: dict[str, Run]) -> None:
    losses = {
        name: json.loads((runs[name].folder / "training.json").read_text())["history"][0]["loss"]
        for name in ("warm", "cold")
    }
    assert losses["warm"] < losses["cold"] - 0.2
    found = compare([str(runs[name].folder) for name in ("cold", "warm")], ("HR@1",))
    warm = found.frame[found.frame["run"] == "warm"].iloc[0]
    assert warm["difference"] > 0 and warm["p"] < 0.05


def test_the_bundle_knows_old_and_new_items(runs: dict[str, Run]) -> None:
    found = runs["warm"].recommend(pd.DataFrame({"history": [["i01", "i33"], ["i02"]]}), k=30)
    assert {"i31", "i34"} <= set(found["item"])


def test_a_run_goes_on_over_a_log_that_has_grown(
    runs: dict[str, Run],
    tree: Tree,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same run, resumed: ids get rows, and nothing that was learned is lost."""
    before = checkpoint.newest(runs["may"].folder / "checkpoints")
    rows = vocabulary(runs["may"]).values.to_pylist()
    record = (runs["may"].folder / "training.json").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("recsys.runs.fit._train", lambda *_: 1 / 0)  # stands for a kill
        run(tree, resume=True)
    for asked in (lambda: run(tree, resume=True), lambda: evaluate(resolve(tree))):
        with pytest.raises(ConfigError, match=r"event log as it was before.* never saw: train on"):
            asked()  # nothing is left to train: no figure is of what was never seen
        assert (runs["may"].folder / "training.json").read_bytes() == record
    longer = ["trainer.epochs=14"]
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr("recsys.runs.fit._record", lambda *_: 1 / 0)  # after its last checkpoint
        run(tree, longer, resume=True)
    with pytest.raises(ConfigError, match="event log as it was before"):
        evaluate(resolve(tree, longer))
    resumed = run(tree, longer, resume=True)
    told = capsys.readouterr().err
    assert "6 new ids of item" in told and "table item has 37 rows, 31 before" in told
    assert "the examples are others than before: the epoch begins anew" in told
    assert vocabulary(resumed).values.to_pylist()[:30] == rows
    assert checkpoint.newest(resumed.folder / "checkpoints") > before  # type: ignore[operator]
    assert resumed.metrics.loc["sasrec", "HR@10"] > 0.5


def test_what_cannot_be_started_from_is_named(runs: dict[str, Run], tree: Tree) -> None:
    with pytest.raises(DataError, match="nowhere is not a run"):
        run(tree, ["name=x", "trainer.start_from=nowhere"])
    may = f"trainer.start_from={runs['warm'].folder}"
    with pytest.raises(DataError, match=r"has the width 16, now 8; train anew"):
        run(tree, ["name=x", may, "retriever.width=8"])
    popular = run(tree, ["name=popular", 'retriever={name="popularity"}'])
    with pytest.raises(DataError, match="that run has no checkpoints"):
        run(tree, ["name=x", f"trainer.start_from={popular.folder}"])


def test_features_come_and_go_with_leave_alone(runs: dict[str, Run], tree: Tree) -> None:
    towers = {**tree, "retriever": {"name": "two_tower", "width": 16}}
    first = resolve(towers, ["name=towers", "trainer.epochs=3"])
    train(first)
    start = ["name=more", f"trainer.start_from={first.folder}", "trainer.epochs=1"]
    more = ['retriever.user_features=["user"]']
    with pytest.raises(DataError, match=r"features differ \(\+user\); set trainer.allow_feature"):
        train(resolve(towers, [*start, *more]))
    train(resolve(towers, [*start, *more, "trainer.allow_feature_changes=true"]))
    back = ["trainer.allow_feature_changes=true", "trainer.epochs=2"]
    resumed = resolve(towers, [*start, *back])
    train(resumed, resume=True)  # the feature is dropped again
    assert len(json.loads((resumed.folder / "training.json").read_text())["history"]) == 2
    with pytest.raises(ConfigError, match=r"retriever\.user_features was \[\], now \['user'\]"):
        train(resolve(towers, [*start, *more, "trainer.epochs=3"]), resume=True)
