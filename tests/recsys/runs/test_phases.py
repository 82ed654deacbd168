"""Phases are data: lists of them that no config makes yet train one after the other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from conformance import Recorder
from feature_store.durable import tidy
from feature_store.errors import ConfigError
from feature_store.ingest import ingest
from feature_store.protocols import LEARNT, TRAIN
from recsys.config import RunConfig, parse_config
from recsys.runs.finished import Run
from recsys.runs.fit import fit, training_seconds
from recsys.runs.folder import RunFolder
from recsys.runs.phases import Phase, phases_of, phases_of_run
from recsys.runs.standing import clear, left_to_train, mark, unfinished
from recsys.runs.work import working_on
from recsys.training import checkpoint
from recsys.training.options import PhaseConfig, TrainerConfig
from recsys.training.trainer import Progress


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    config = parse_config(
        {
            "name": "small",
            "output": str(tmp_path),
            "data": {"source": "synthetic", "users": 60, "items": 40, "clusters": 4, "events": 10},
            "split": {"protocol": "leave_one_out"},
            "retriever": {"name": "sasrec", "width": 8, "blocks": 1, "max_length": 10},
            "reader": {"batch_size": 32},
            "trainer": {"epochs": 2, "device": "cpu"},
            "evaluation": {"ks": [10]},
            "tracking": {"enabled": False},
        }
    )
    ingest(config.data, config.store_folder)
    return config


def test_pre_training_and_fine_tuning_are_two_values(config: RunConfig) -> None:
    """The second starts from the best weights of the first, and keeps its ids."""
    heard: dict[str, Recorder] = {}

    @contextmanager
    def listen(phase: Phase) -> Iterator[Recorder]:
        heard[phase.name] = Recorder()
        yield heard[phase.name]

    slow = config.trainer.model_copy(update={"epochs": 1})
    pretrain = Phase("pretrain", LEARNT, config.trainer)
    tune = Phase("train", (TRAIN,), slow, start_from=pretrain)
    with working_on(config) as work, work.tracked() as tracker:
        assert fit(work, tracker, phases=(pretrain, tune), listen=listen)
    files = RunFolder(config.folder)
    first, second = files.phase("pretrain"), files.phase("train")
    start = checkpoint.best(first.checkpoints)
    assert heard["pretrain"].notes == []
    assert heard["train"].notes == [f"starts from {start}"]
    assert heard["train"].losses[0] < heard["pretrain"].losses[0]
    words = [folder.vocabularies / "item_id.arrow" for folder in (first, second)]
    assert words[0].read_bytes() == words[1].read_bytes()
    record: dict[str, Any] = json.loads(files.training_record.read_text())
    assert len(record["pretrain_history"]) == 2 and "pretrain_best" not in record
    assert len(record["history"]) == 1 and record["best_epoch"] == 1
    seconds = [epoch["seconds"] for epoch in record["pretrain_history"] + record["history"]]
    assert training_seconds(files) == sum(seconds)


def test_a_refit_is_the_second_of_two_phases(config: RunConfig) -> None:
    (train,) = phases_of(config.trainer)
    assert (train.name, train.examples, train.validated) == ("train", (TRAIN,), True)
    train, refit = phases_of(TrainerConfig(refit=True))
    assert (refit.name, refit.examples, refit.validated) == ("refit", LEARNT, False)
    assert refit.as_long_as == train and refit.start_from is None


def test_options_list_phases_each_of_which_starts_from_the_one_before() -> None:
    trainer = TrainerConfig(
        epochs=7,
        patience=2,
        refit=True,
        phases=(
            PhaseConfig(name="pretrain", epochs=3, learning_rate=0.5),
            PhaseConfig(name="train", patience=4),
        ),
    )
    pretrain, train, first_again, again = phases_of(trainer)
    assert (pretrain.learns, train.learns, again.learns) == ("pretrain", "train", "train")
    assert (pretrain.trainer.epochs, pretrain.trainer.optimizer.learning_rate) == (3, 0.5)
    assert (train.trainer.epochs, train.trainer.patience) == (7, 4)
    assert train.trainer.optimizer == trainer.optimizer
    assert (pretrain.start_from, train.start_from) == (None, pretrain)
    assert (first_again.name, again.name) == ("refit_pretrain", "refit")
    assert (again.start_from, again.as_long_as, again.examples) == (first_again, train, LEARNT)


def test_a_phase_that_a_model_has_not_is_refused(config: RunConfig) -> None:
    tree = config.to_dict()
    refused = (
        (["pretrain"], "0.name: sasrec has no"),
        (["train", "train"], "1.name: 'train' comes"),
    )
    for names, told in refused:
        tree["trainer"]["phases"] = [{"name": name} for name in names]
        with pytest.raises(ConfigError, match=rf"trainer\.phases\.{told}"):
            parse_config(tree)


def test_a_training_that_stopped_in_its_first_phase_is_not_taken_for_none(
    config: RunConfig,
) -> None:
    """Neither begun anew unasked, nor gone on with under other options; it may become longer."""
    options = [PhaseConfig(name="pretrain", epochs=1), PhaseConfig(name="train")]
    files = RunFolder(config.folder)
    stopped = files.phase("pretrain").checkpoints / "step-000000001"
    stopped.mkdir(parents=True)
    (stopped / "state.json").write_text("{}")

    def of(**other: Any) -> RunConfig:
        trainer = config.trainer.model_copy(update={"phases": tuple(options), **other})
        return config.model_copy(update={"trainer": trainer})

    mark(of(), files)
    with pytest.raises(ConfigError, match="was stopped: go on with --resume"):
        left_to_train(of(), resume=False, fresh=False)
    assert left_to_train(of(), resume=True, fresh=False)
    assert unfinished(of()) == "holds a training that was stopped"
    options[0] = PhaseConfig(name="pretrain", epochs=9)
    assert left_to_train(of(), resume=True, fresh=False)
    options[0] = PhaseConfig(name="pretrain", learning_rate=0.1)
    with pytest.raises(ConfigError, match=r"trainer\.phases\.0\.learning_rate"):
        left_to_train(of(), resume=True, fresh=False)
    options[0] = PhaseConfig(name="pretrain")
    assert left_to_train(
        of(phases=(*options, PhaseConfig(name="train_on"))), resume=True, fresh=False
    )
    for others in ((options[0],), ()):  # what was trained is no more asked for
        with pytest.raises(ConfigError, match=r"trainer\.phases"):
            left_to_train(of(phases=others), resume=True, fresh=False)


def test_a_training_that_is_cleared_away_is_gone_at_once(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a program is killed meanwhile, nobody goes on from half a checkpoint."""
    files = RunFolder(config.folder)
    for phase in ("pretrain", "train"):
        (files.phase(phase).checkpoints / "step-000000001").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
        clear(files)
    assert files.checkpoints == []
    mark(config, files)
    tidy(config.folder)
    assert sorted(path.name for path in config.folder.iterdir()) == ["checkpoints"]


def test_a_refit_is_as_long_as_was_best_and_keeps_the_schedules_horizon(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate falls as it fell while the epoch was chosen, not to the end in fewer epochs."""
    asked: list[tuple[int, int]] = []

    def trainer_of(*arguments: Any, **options: Any) -> Any:
        asked.append((options["trainer"].epochs, options["planned_epochs"]))
        return Mock(fit=lambda resume: Progress(best_epoch=3, best=0.5))

    monkeypatch.setattr("recsys.runs.fit.trainer_of", trainer_of)
    phases = phases_of(config.trainer.model_copy(update={"refit": True, "epochs": 7}))
    with working_on(config) as work, work.tracked() as tracker:
        assert fit(work, tracker, phases=phases)
    assert asked == [(7, 7), (3, 7)]


def test_phases_of_a_run_of_another_version_are_known(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[trainer]\nrefit = true\nnewer_than_this = 3\n")
    assert [phase.name for phase in phases_of_run(Run(tmp_path))] == ["train", "refit"]
