"""A run that is started again: what is finished is kept, what is missing is made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w

import recsys as recsys_api
from feature_store.errors import ConfigError
from pipelines import export
from recsys.tracking import Tracker
from recsys.training.trainer import Trainer

Tree = dict[str, Any]
TreeOf = Callable[..., Tree]
Ask = Callable[..., tuple[Any, str, str]]


@pytest.fixture(scope="module")
def original(tree_of: TreeOf, recsys: Ask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config whose run is finished."""
    folder = tmp_path_factory.mktemp("again")
    tree = tree_of(
        folder,
        trainer={"epochs": 2, "device": "cpu"},
        evaluation={"ks": [10], "replicates": 100},
        baselines=[],
    )
    (folder / "small.toml").write_text(tomli_w.dumps(tree))
    status, _, errors = recsys("run", folder / "small.toml")
    assert status == 0, errors
    return folder / "small.toml"


@pytest.fixture
def config(original: Path, tmp_path: Path) -> tuple[Path, str, str]:
    """A copy of the run that a test may change, as words of a command line."""
    shutil.copytree(original.parent, tmp_path, symlinks=True, dirs_exist_ok=True)
    (store,) = (original.parent / "store").iterdir()
    return original, f"output={tmp_path}", f"store={store}"


@pytest.fixture
def run(tmp_path: Path, config: tuple[Path, str, str]) -> Path:
    return tmp_path / "small"


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step of training may be made."""

    def step(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Trainer, "step", step)


def weights(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("checkpoints/step-*/*.distcp")}


@pytest.mark.usefixtures("never")
def test_a_finished_run_is_left_as_it_is(recsys: Ask, config: Any, run: Path) -> None:
    parts = ("metrics.json", "seconds.json", "training.json", "bundle/manifest.json", "report.html")
    before = {name: (run / name).stat().st_mtime_ns for name in parts}
    status, out, errors = recsys("run", *config)
    assert status == 0, errors
    assert "holds a finished training" in errors and "--resume" in errors and "--fresh" in errors
    assert errors.count("there already") == 2 and "five recommendations" in out
    assert {name: (run / name).stat().st_mtime_ns for name in parts} == before


@pytest.mark.usefixtures("never")
def test_what_is_missing_is_made_of_the_finished_training(
    recsys: Ask, config: Any, run: Path
) -> None:
    figures = (run / "metrics.json").read_bytes()
    (run / "metrics.json").unlink()
    (run / "bundle").unlink()
    status, _, errors = recsys("run", *config)
    assert status == 0, errors
    assert (run / "metrics.json").read_bytes() == figures
    assert "there already" not in errors and "verified" in errors
    (run / "bundle").unlink()
    _, _, errors = recsys("run", *config)
    assert errors.count("there already") == 1 and "verified" in errors


@pytest.mark.usefixtures("never")
def test_figures_of_other_options_are_made_anew(recsys: Ask, config: Any, run: Path) -> None:
    status, _, errors = recsys("run", *config, "evaluation.ks=[5, 10]", 'baselines=["popularity"]')
    assert status == 0, errors
    found = json.loads((run / "metrics.json").read_text())["retrievers"]
    assert list(found) == ["sasrec", "popularity"] and "NDCG@5" in found["sasrec"]["metrics"]
    manifest = json.loads((run / "bundle" / "manifest.json").read_text())
    assert manifest["parts"]["generator"]["about"]["metrics"] == found["sasrec"]["metrics"]


@pytest.mark.usefixtures("never")
def test_a_bundle_never_carries_the_figures_of_other_options(
    recsys: Ask, config: Any, run: Path
) -> None:
    assert recsys("run", *config)[0] == 0
    kept = (run / "bundle" / "manifest.json", run / "config.toml")
    before = [path.read_bytes() for path in kept]
    message, _, _ = recsys("export", *config, "evaluation.replicates=123")
    assert "holds no figures" in message and f"recsys evaluate {run}" in message
    assert [path.read_bytes() for path in kept] == before


def test_the_alias_moves_to_a_model_that_beats_its_baselines_or_by_force(
    recsys: Ask, config: Any, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aliases: list[str | None] = []
    nothing = SimpleNamespace(manifest=SimpleNamespace(parts={}))
    monkeypatch.setattr(export, "publish_bundle", lambda *_, **__: nothing)
    monkeypatch.setattr(
        Tracker, "register_bundle", lambda self, folder, name, alias: aliases.append(alias)
    )
    results = json.loads((run / "metrics.json").read_text())
    assert "verdict" not in results  # it was held against none
    assert recsys("export", *config)[0] == 0
    for beats, words in ((True, []), (False, []), (False, ["--force"])):
        held = results | {"verdict": {"beats_baselines": beats}}
        (run / "metrics.json").write_text(json.dumps(held))
        assert recsys("export", *config, *words)[0] == 0
    assert aliases == ["candidate", "candidate", None, "candidate"]


@pytest.mark.usefixtures("never")
def test_train_leaves_a_finished_training_alone(recsys: Ask, config: Any, run: Path) -> None:
    before = weights(run)
    status, _, errors = recsys("train", *config)
    assert status == 0 and "holds a finished training" in errors
    assert weights(run) == before and len(before) > 0


def test_a_longer_training_is_asked_for(recsys: Ask, config: Any, run: Path) -> None:
    """Neither is the longer one ignored, nor is the shorter one thrown away."""
    before, resolved = weights(run), (run / "config.toml").read_bytes()
    for verb in ("run", "train"):
        message, _, _ = recsys(verb, *config, "trainer.epochs=3")
        assert "trainer.epochs was 2, now 3" in message and "\n" not in message
        assert "--resume" in message and "--fresh" in message
    assert weights(run) == before and (run / "config.toml").read_bytes() == resolved
    status, _, errors = recsys("run", *config, "trainer.epochs=3", "--resume")
    assert status == 0 and "train epoch   3" in errors and "train epoch   2" not in errors
    assert len(json.loads((run / "training.json").read_text())["history"]) == 3
    assert "there already" not in errors


def test_fresh_trains_anew(recsys: Ask, config: Any, run: Path) -> None:
    figures = (run / "metrics.json").read_bytes()
    status, _, errors = recsys("run", *config, "--fresh")
    assert status == 0 and "train epoch   1" in errors and "there already" not in errors
    assert (run / "metrics.json").read_bytes() == figures
    message, _, _ = recsys("run", *config, "--fresh", "--resume")
    assert "choose one" in message


def test_a_stopped_training_asks_what_to_do(recsys: Ask, config: Any, run: Path) -> None:
    """As a kill between the last epoch and its record leaves it."""
    (run / "training.json").unlink()
    before = weights(run)
    for verb in ("run", "train"):
        message, _, _ = recsys(verb, *config)
        assert "holds a training that was stopped: go on with --resume, or" in message
        assert "--fresh" in message and "\n" not in message
    assert weights(run) == before
    status, _, errors = recsys("train", *config, "--resume")
    assert status == 0 and "train epoch" not in errors
    assert (run / "training.json").exists()


def test_a_training_that_goes_on_is_not_finished_meanwhile(
    recsys: Ask, config: Any, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        message, _, _ = recsys("train", *config, "trainer.epochs=3", "--resume")
    assert "killed" in message
    message, _, _ = recsys("train", *config, "trainer.epochs=3")
    assert "was stopped" in message
    assert recsys("train", *config, "trainer.epochs=3", "--resume")[0] == 0


def test_another_config_may_take_the_folder_when_that_is_said(
    recsys: Ask, config: Any, run: Path, original: Path
) -> None:
    before = weights(run)
    message, _, _ = recsys("train", *config, "retriever.width=8")
    assert "another config (retriever.width was 16, now 8)" in message
    assert "another name" in message and "--fresh" in message
    assert weights(run) == before
    assert recsys("train", *config, "retriever.width=8", "--fresh")[0] == 0
    assert weights(run) != before
    # figures and bundle are still those of the weights that are no more
    assert "holds no figures of this training" in recsys("export", run)[0]
    message, _, _ = recsys("compare", run, original.parent / "small")
    assert message == (
        f"recsys: {run} was trained again since sasrec was measured: run `recsys evaluate {run}` "
        "first"
    )
    status, out, errors = recsys("recommend", run, "--user", 2)
    assert status == 0 and "rank" in out and "trained again since its bundle was made" in errors
    assert "trained again" not in recsys("recommend", original.parent / "small", "--user", 2)[2]
    with pytest.warns(UserWarning, match=r"trained again since its bundle was made.*recsys run"):
        recsys_api.open_run(run).recommend(2)
    message, _, _ = recsys("evaluate", *config)
    assert "retriever.width was 8, now 16" in message


def test_what_does_not_change_weights_may_differ(recsys: Ask, config: Any) -> None:
    status, _, errors = recsys("train", *config, "trainer.keep=5", "reader.workers=1")
    assert status == 0 and "holds a finished training" in errors


def test_fresh_from_python(config: Any, run: Path) -> None:
    path, *overrides = config
    record = (run / "training.json").read_bytes()
    finished = recsys_api.run(path, *overrides)
    assert (run / "training.json").read_bytes() == record
    again = recsys_api.run(path, *overrides, fresh=True)
    assert (run / "training.json").read_bytes() != record  # it took other seconds
    assert again.metrics.equals(finished.metrics)
    with pytest.raises(ConfigError, match="choose one"):
        recsys_api.run(path, *overrides, fresh=True, resume=True)
