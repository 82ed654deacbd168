"""Ctrl-C: one line that says what is kept and what to type, and the status of SIGINT."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from pipelines.cli.stopping import Stopped

Ask = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def config(tree_of: Callable[..., Any], tmp_path: Path) -> Path:
    path = tmp_path / "a shop.toml"
    path.write_text(tomli_w.dumps(tree_of(tmp_path / "runs")))
    return path


@pytest.fixture
def stopped(recsys: Ask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Stops a verb before it has done anything, and returns what it says of what is there."""
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")

    def stopped(*words: object) -> str:
        def stop(*_: object, **__: object) -> None:
            raise Stopped(signal.SIGINT)

        for job in ("run.run", "train.train", "tune.tune", "ingest.ingest_source"):
            monkeypatch.setattr(f"pipelines.{job}", stop)
        status, out, errors = recsys(*words)
        assert status == 130 and out == "" and errors.count("\n") == 1, errors
        assert errors.startswith("recsys: stopped by Ctrl-C: ")
        return errors

    return stopped


def test_what_nothing_is_kept_of_begins_again(stopped: Callable[..., str], config: Path) -> None:
    told = f"recsys: stopped by Ctrl-C: begin again with `recsys run '{config}' seed=2`\n"
    assert stopped("run", config, "seed=2", "--fresh") == told
    assert stopped("tune", config).endswith(f"begin again with `recsys tune '{config}'`\n")
    assert "the same command goes on" in stopped("ingest", config)


def test_a_training_goes_on(stopped: Callable[..., str], config: Path) -> None:
    for folder in ("checkpoints", "checkpoints_refit"):
        for step in (8, 16):
            (config.parent / "runs" / "small" / folder / f"step-{step:09d}").mkdir(parents=True)
    for verb in ("run", "train"):
        told = stopped(verb, config, "--fresh")
        assert "checkpoints_refit/step-000000016 is kept: go on with `recsys" in told
        assert told.endswith(f"{verb} '{config}' --resume`\n")
    (config.parent / "runs" / "small" / "training.json").write_text("{}")
    told = stopped("run", config, "--resume")
    assert "the training is finished and kept" in told and told.endswith(f"run '{config}'`\n")


def test_a_search_goes_on(stopped: Callable[..., str], config: Path) -> None:
    below = config.parent / "runs" / "small"
    (below / "tuning" / "ease").mkdir(parents=True)
    (below / "tuning" / "ease" / "tuning.db").touch()
    told = stopped("tune", config, "--retriever", "ease", "--replace")
    assert "trials so far are kept: go on with" in told
    assert told.endswith(f"`recsys tune '{config}' --retriever ease --resume`\n")
    assert "begin again" in stopped("tune", config)
