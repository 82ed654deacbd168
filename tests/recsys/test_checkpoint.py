"""Checkpoints appear whole or not at all, and the newest whole one is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from conformance import fresh, small, trainer_of, training
from feature_store.errors import DataError
from feature_store.examples import Shape
from recsys.embeddings.layout import EmbeddingsConfig
from recsys.examples import Examples
from recsys.training import checkpoint
from recsys.training.distributed import Group

SHARDED = EmbeddingsConfig(shard_above_mb=0)


def save(folder: Path, group: Group, step: int, weight: float = 0.0) -> Path:
    model = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(model.weight, weight)
    path = folder / f"step-{step:09d}"
    checkpoint.save(path, model, None, {"step": step}, group)
    return path


def test_torn_checkpoints_are_passed_over(group: Group, tmp_path: Path) -> None:
    """A save that was killed leaves a hidden folder, or one that lacks its last file."""
    assert checkpoint.latest(tmp_path) is None
    whole = save(tmp_path, group, 2)
    save(tmp_path, group, 4).rename(tmp_path / ".step-000000004.partial")
    (save(tmp_path, group, 6) / "state.json").unlink()
    assert checkpoint.latest(tmp_path) == whole
    again = save(tmp_path, group, 4)  # over the remains
    assert checkpoint.latest(tmp_path) == again
    assert checkpoint.read_state(again)["step"] == 4


def test_the_newest_whole_ones_are_kept(group: Group, tmp_path: Path) -> None:
    for step in (2, 4, 10, 6):
        save(tmp_path, group, step)
    save(tmp_path, group, 3).rename(tmp_path / "best")
    checkpoint.prune(tmp_path, keep=2)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["best", "step-000000006", "step-000000010"]
    (tmp_path / "step-000000010" / "state.json").unlink()
    checkpoint.prune(tmp_path, keep=1)
    assert checkpoint.latest(tmp_path) == tmp_path / "step-000000006"


def test_a_kill_while_a_checkpoint_is_removed_leaves_none_that_is_torn(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after the first file is gone: what `latest` finds can be loaded."""
    whole = save(tmp_path, group, 4)
    save(tmp_path, group, 6)
    rmtree = shutil.rmtree

    def killed(folder: Path, **options: object) -> None:
        if not (Path(folder) / "state.json").exists():
            return rmtree(folder, **options)  # type: ignore[arg-type]
        next(Path(folder).glob("*.distcp")).unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, group, 6, weight=1.0)
    monkeypatch.undo()
    found = checkpoint.latest(tmp_path)
    assert found == whole
    checkpoint.load_unsharded(found, torch.nn.Linear(2, 1))


def test_what_is_missing_is_named(group: Group, tmp_path: Path) -> None:
    whole = save(tmp_path, group, 2)
    model = torch.nn.Linear(2, 1)
    with pytest.raises(DataError, match="best holds no whole checkpoint"):
        checkpoint.load_unsharded(tmp_path / "best", model)
    for name in (".metadata", "__0_0.distcp"):
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        (copy / name).unlink()
        with pytest.raises(DataError, match=f"copy.*{name}"):
            checkpoint.load_unsharded(copy, model)
        shutil.rmtree(copy)


def test_weights_of_another_shape_are_refused(group: Group, tmp_path: Path) -> None:
    whole = save(tmp_path, group, 2)
    with pytest.raises(DataError, match="weight"):
        checkpoint.load_unsharded(whole, torch.nn.Linear(3, 1))


@pytest.mark.parametrize("embeddings", [EmbeddingsConfig(), SHARDED], ids=["dense", "sharded"])
def test_a_trained_model_loads_without_the_training_stack_around_it(
    planted: dict[Shape, Examples], group: Group, tmp_path: Path, embeddings: EmbeddingsConfig
) -> None:
    """What DMP saved, a plain model reads, name by name and number by number."""
    examples, config = planted["events"], small("two_tower")
    trainer = trainer_of(
        config, examples, tmp_path, group, training(steps=3), embeddings=embeddings
    )
    trainer.fit()
    plain = fresh(config, examples, embeddings, seed=5)
    checkpoint.load_unsharded(tmp_path / "best", plain)
    saved = trainer.model.state_dict()
    assert set(saved) == set(plain.state_dict())
    for name, value in plain.state_dict().items():
        whole = saved[name].local_tensor() if hasattr(saved[name], "local_tensor") else saved[name]
        assert torch.equal(value, whole), name
