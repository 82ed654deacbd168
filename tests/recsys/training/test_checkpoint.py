"""Checkpoints appear whole or not at all, and the newest whole one is found."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance import fresh, small, trainer_of, training
from feature_store.errors import DataError
from planted import Shape
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.embeddings.options import EmbeddingsConfig, PerFeature
from recsys.training import checkpoint
from recsys.training.background import Writer
from recsys.training.growth import describe
from recsys.training.trainer import Progress

TESTS = Path(__file__).resolve().parents[1]
SHARDED = PerFeature(shard_above_mb=0)


def save(folder: Path, group: Group, step: int, weight: float = 0.0, **state: Any) -> Path:
    model = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(model.weight, weight)
    path = checkpoint.folder_of(folder, step)
    checkpoint.save(path, model, None, {"step": step, **state}, group)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_torn_checkpoints_are_passed_over_and_named(group: Group, tmp_path: Path) -> None:
    """A save that was killed leaves a hidden folder, or one that lacks its last file."""
    assert checkpoint.newest(tmp_path) is None and checkpoint.torn(tmp_path) == []
    whole = save(tmp_path, group, 2)
    save(tmp_path, group, 4).rename(tmp_path / ".step-000000004.partial")
    (save(tmp_path, group, 6) / "state.json").unlink()
    assert checkpoint.newest(tmp_path) == whole
    assert checkpoint.torn(tmp_path) == ["step-000000004", "step-000000006"]
    again = save(tmp_path, group, 4)  # over the remains
    assert checkpoint.newest(tmp_path) == again
    assert checkpoint.read_state(again)["step"] == 4
    assert checkpoint.torn(tmp_path) == ["step-000000006"]


def test_a_resumed_training_names_what_was_torn(
    planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    from conformance import Recorder

    config, examples = small("sasrec"), planted["sequences"]
    trainer_of(config, examples, tmp_path, group, training(steps=3)).fit()
    (tmp_path / ".step-000000005.partial").mkdir()
    heard = Recorder()
    trainer_of(config, examples, tmp_path, group, training(steps=5), listener=heard).fit(
        resume=True
    )
    assert heard.notes == [
        "step-000000005 was not whole when the program stopped, and is passed over",
        "goes on from step 3, in epoch 1 of 25",
    ]
    assert len(heard.losses) == 2
    assert names(tmp_path) == ["step-000000003", "step-000000005"]


def test_the_newest_whole_ones_and_the_best_are_kept(group: Group, tmp_path: Path) -> None:
    for step in (2, 4, 10, 6):
        save(tmp_path, group, step, best_step=4)
    checkpoint.prune(tmp_path, keep=1)
    assert names(tmp_path) == ["step-000000004", "step-000000010"]
    assert checkpoint.best(tmp_path) == tmp_path / "step-000000004"
    (tmp_path / "step-000000010" / "state.json").unlink()
    checkpoint.prune(tmp_path, keep=1)
    assert checkpoint.newest(tmp_path) == tmp_path / "step-000000004"


def test_what_was_being_written_goes_too_also_where_nothing_is_whole(
    group: Group, tmp_path: Path
) -> None:
    for name in (".step-000000003.partial", ".step-000000001.removed"):
        (tmp_path / name).mkdir()
    checkpoint.prune(tmp_path, keep=1)
    assert names(tmp_path) == []


def test_without_a_validation_there_is_no_best(group: Group, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no checkpoint that was validated"):
        checkpoint.best(tmp_path)
    save(tmp_path, group, 2)
    with pytest.raises(DataError, match="holds no checkpoint that was validated"):
        checkpoint.best(tmp_path)
    validated = Progress(history=[{"AUC": float("nan")}])
    save(tmp_path, group, 4, progress=vars(validated))
    with pytest.raises(DataError, match=r"no epoch a figure .* trainer.metric, .* --fresh"):
        checkpoint.best(tmp_path)


def test_a_kill_while_a_checkpoint_is_removed_leaves_none_that_is_torn(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after the first file is gone: what `newest` finds can be loaded."""
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
    found = checkpoint.newest(tmp_path)
    assert found == whole
    checkpoint.load_unsharded(found, torch.nn.Linear(2, 1))


@pytest.fixture(scope="module")
def saver() -> Iterator[subprocess.Popen[str]]:
    """A program that starts processes which save without an end."""
    program = subprocess.Popen(
        [sys.executable, TESTS / "workers" / "save.py"],
        env={**os.environ, "PYTHONPATH": str(TESTS.parents[1]), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        start_new_session=True,  # with its own processes, to be ended together
    )
    yield program
    os.killpg(program.pid, signal.SIGKILL)
    program.communicate()


@pytest.mark.parametrize("copy_mb", [0, 100], ids=["at_once", "beside"])
def test_a_kill_at_any_moment_leaves_a_checkpoint_that_loads(
    saver: subprocess.Popen[str], tmp_path: Path, copy_mb: int
) -> None:
    """The worker does nothing but write: most kills fall into a save."""
    assert saver.stdin is not None and saver.stdout is not None
    moments, before = random.Random(copy_mb), 0
    for _ in range(3):
        saver.stdin.write(f"{tmp_path} {copy_mb}\n")
        worker, *said = (int(saver.stdout.readline()) for _ in range(4))
        time.sleep(moments.random() * 0.2)
        os.kill(worker, signal.SIGKILL)
        said += [int(line) for line in iter(saver.stdout.readline, "dead\n")]
        found = checkpoint.newest(tmp_path)
        assert found is not None
        model = torch.nn.Linear(1000, 500)
        state = checkpoint.load_unsharded(found, model)
        assert model.weight[0, 0] == state["step"] == int(found.name[5:])
        assert state["step"] >= said[-1] - 1 > before  # the one that was begun last, or before it
        assert checkpoint.best(tmp_path).exists()
        assert all(name > found.name for name in checkpoint.torn(tmp_path))
        before = state["step"]


# -- files that are not what was written ------------------------------------------------------


def damage(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp"])
def test_what_is_missing_or_altered_is_named(group: Group, tmp_path: Path, name: str) -> None:
    whole, model = save(tmp_path, group, 2), torch.nn.Linear(2, 1)
    with pytest.raises(DataError, match="step-000000009 holds no whole checkpoint"):
        checkpoint.load_unsharded(tmp_path / "step-000000009", model)
    damage(whole, name)
    for load in (
        lambda: checkpoint.load_unsharded(whole, model),
        lambda: checkpoint.load(whole, model, None, group),
    ):
        with pytest.raises(DataError, match=f"{name} was altered .* use an earlier"):
            load()
    (whole / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        checkpoint.load_unsharded(whole, model)


def test_another_format_is_refused(group: Group, tmp_path: Path) -> None:
    whole = save(tmp_path, group, 2)
    text = (whole / "state.json").read_text()
    (whole / "state.json").write_text(text.replace('"format": 2', '"format": 1'))
    with pytest.raises(DataError, match="checkpoint format 1, this program reads 2"):
        checkpoint.load_unsharded(whole, torch.nn.Linear(2, 1))


def test_weights_of_another_shape_are_refused(group: Group, tmp_path: Path) -> None:
    whole = save(tmp_path, group, 2)
    with pytest.raises(DataError, match="weight"):
        checkpoint.load_unsharded(whole, torch.nn.Linear(3, 1))


# -- disks that are full ----------------------------------------------------------------------


def test_a_full_disk_is_told_and_earlier_checkpoints_stand(group: Group, tmp_path: Path) -> None:
    """Files may not grow beyond 100 kB here, as on a disk that has no more room."""
    save(tmp_path, group, 2, weight=2.0, best_step=2)
    large = torch.nn.Linear(1000, 100)
    writer = Writer(tmp_path, group, keep=2, copy_mb=100)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    tensors = checkpoint.tensors_of(large, None, group)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        writer.save(4, tensors, {"model": describe(large, None)})  # the training goes on
        with pytest.raises(DataError, match=r"step-000000004 cannot be written .* GB of that disk"):
            writer.wait()
        with pytest.raises(DataError, match="earlier checkpoints stand: make room"):
            checkpoint.save(tmp_path / "step-000000006", large, None, {}, group)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.newest(tmp_path) == tmp_path / "step-000000002"
    model = torch.nn.Linear(2, 1)
    checkpoint.load_unsharded(tmp_path / "step-000000002", model)
    assert (model.weight == 2).all()
    assert checkpoint.torn(tmp_path) == []  # and nothing half written takes up the room
    writer.save(8, tensors, {"model": describe(large, None)})
    writer.wait()
    assert checkpoint.newest(tmp_path) == tmp_path / "step-000000008"


def test_a_folder_that_cannot_be_written_is_named(group: Group, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/step-000000002 cannot be written"):
        save(tmp_path / "file", group, 2)


# -- beside the training ----------------------------------------------------------------------


@pytest.mark.parametrize("embeddings", [PerFeature(), SHARDED], ids=["dense", "sharded"])
def test_what_is_written_beside_is_the_state_of_its_moment(
    planted: dict[Shape, Examples], group: Group, tmp_path: Path, embeddings: EmbeddingsConfig
) -> None:
    """Though the weights move on while it is written."""
    examples = planted["events"]
    trainer = trainer_of(
        small("two_tower"), examples, tmp_path, group, training(steps=2), embeddings=embeddings
    )
    trainer.fit()
    tensors = checkpoint.tensors_of(trainer.model, trainer.optimizer, group)
    now = {name: whole(value) for name, value in tensors["model"].items()}
    writer = Writer(tmp_path / "beside", group, keep=2, copy_mb=100)
    writer.save(2, tensors, {"model": describe(trainer.model, trainer.optimizer), "best_step": 2})
    writer.settle()
    with torch.no_grad():
        for value in tensors["model"].values():
            for part in value.local_shards() if hasattr(value, "local_shards") else [None]:
                (value if part is None else part.tensor).fill_(99)
    writer.wait()
    plain = fresh(small("two_tower"), examples, embeddings)
    checkpoint.load_unsharded(checkpoint.best(tmp_path / "beside"), plain)
    found = checkpoint.tensors_of(plain, None, group)["model"]
    assert all(torch.equal(found[name], now[name]) for name in now)


def whole(value: Any) -> Tensor:
    return (value.local_tensor() if hasattr(value, "local_tensor") else value).clone()


def test_the_training_does_not_wait_for_what_is_written_beside(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write is held up until the training has gone on; state too large is written at once."""
    import threading

    gone_on, written, write = threading.Event(), [], checkpoint.write

    def held(folder: Path, *arguments: Any) -> None:
        assert gone_on.wait(20)
        write(folder, *arguments)
        written.append(folder.name)

    monkeypatch.setattr(checkpoint, "write", held)
    model = torch.nn.Linear(100, 100)
    tensors = checkpoint.tensors_of(model, None, group)
    beside = Writer(tmp_path, group, keep=2, copy_mb=1)
    beside.save(1, tensors, {"model": describe(model, None)})
    assert written == []  # and yet it returned
    gone_on.set()
    beside.wait()
    assert written == ["step-000000001"]
    at_once = Writer(tmp_path, group, keep=2, copy_mb=0.01)
    at_once.save(2, tensors, {"model": describe(model, None)})
    assert written[-1] == "step-000000002"


@pytest.mark.parametrize("embeddings", [PerFeature(), SHARDED], ids=["dense", "sharded"])
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
    checkpoint.load_unsharded(checkpoint.best(tmp_path), plain)
    saved = trainer.model.state_dict()
    assert set(saved) == set(plain.state_dict())
    for name, value in plain.state_dict().items():
        assert torch.equal(value, whole(saved[name])), name
