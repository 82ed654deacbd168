"""Examples -> checkpoints: choose the epoch on validation, then refit where that is asked."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feature_store.errors import ConfigError
from feature_store.examples import HISTORY, TARGET, TARGET_VALUE
from feature_store.protocols import TEST, VALIDATION
from pipelines.prepare import open_log, prepare
from pipelines.progress import TrainingProgress
from recsys.config import RunConfig
from recsys.evaluation.evaluator import Evaluator
from recsys.evaluation.item_facts import ItemFacts
from recsys.evaluation.recommendations import GivenLists
from recsys.examples import Examples
from recsys.reader import Reader, ReaderConfig
from recsys.retrievers import RETRIEVERS, build
from recsys.retrievers.base import TrainedRetriever, VectorRetriever
from recsys.tracking import Tracker
from recsys.training.distributed import Group
from recsys.training.trainer import Trainer, TrainerConfig, Validate

_MARKER = "config.txt"  # beside the checkpoints: the fingerprint of their config


def seed_all(seed: int) -> None:
    """Seed every random state that training draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def check_same_training(config: RunConfig) -> None:
    """Raises ConfigError when the run's folder holds a training of another config."""
    folder = config.folder / "checkpoints"
    marker = folder / _MARKER
    if marker.exists() and marker.read_text() != config.fingerprint:
        raise ConfigError(
            f"{folder} holds checkpoints of another config (data, split, retriever, embeddings, "
            "reader, trainer or seed differ): use that config, or choose another name"
        )


def train(config: RunConfig, group: Group, tracker: Tracker, *, resume: bool = False) -> None:
    """Train the run's retriever; leaves `checkpoints/` and `training.json` in its folder.

    A retriever in closed form has nothing to train here: it is fitted where it is used. Before
    `resume`, call `check_same_training`.
    """
    examples = _prepared(config, group)
    log, _ = open_log(config)
    tracker.log_config(
        {
            **config.to_dict(),
            "run_fingerprint": config.fingerprint,
            "data_fingerprint": log.fingerprint,
            "protocol_fingerprint": examples.summary.fingerprint,
        }
    )
    record_file = config.folder / "training.json"
    if group.leads and not resume:
        record_file.unlink(missing_ok=True)  # of another retriever, perhaps
    if not issubclass(RETRIEVERS[type(config.retriever)], TrainedRetriever):
        return
    retriever = trainable(config, examples)
    folder = config.folder / "checkpoints"
    if group.leads:
        _claim(config, folder, resume)
    group.barrier()
    validate = validator(config, examples, group)
    watched = config.trainer.metric, config.split.short_name
    listener = TrainingProgress(group, tracker, "train", *watched)
    with listener:
        progress = _trainer(
            config, config.trainer, retriever, examples, group, folder, listener, validate
        ).fit(resume=resume)
    record: dict[str, Any] = {
        "best_epoch": progress.best_epoch,
        "best": progress.best,
        "history": progress.history,
    }
    if config.trainer.refit:
        refit = config.trainer.model_copy(update={"epochs": progress.best_epoch})
        everything = _prepared(config, group, refit=True)
        with TrainingProgress(group, tracker, "refit", *watched) as listener:
            again = _trainer(
                config,
                refit,
                trainable(config, everything),
                everything,
                group,
                config.folder / "checkpoints_refit",
                listener,
                None,
            ).fit(resume=resume)
        record["refit_history"] = again.history
    if group.leads:
        record_file.write_text(json.dumps(record, indent=2) + "\n")
    group.barrier()


def trained_folder(config: RunConfig) -> Path:
    """The checkpoint that is evaluated and exported."""
    return config.folder / ("checkpoints_refit" if config.trainer.refit else "checkpoints") / "best"


def validator(config: RunConfig, examples: Examples, group: Group) -> Validate:
    """Full ranking of the validation events by whatever retriever is passed."""
    evaluator = make_evaluator(config, examples, VALIDATION)

    def validate(retriever: VectorRetriever) -> dict[str, float]:
        reader = request_reader(config, examples, retriever, VALIDATION, group)
        return evaluator.evaluate(retriever, reader, group).metrics

    return validate


def make_evaluator(
    config: RunConfig, examples: Examples, role: str, facts: ItemFacts | None = None
) -> Evaluator:
    """The evaluator of the run's protocol for the events of a role."""
    return Evaluator.under(
        config.split,
        config.evaluation,
        examples.candidates(config.split.candidates, role),
        user=examples.schema.user,
        facts=facts,
    )


def request_reader(
    config: RunConfig,
    examples: Examples,
    retriever: VectorRetriever | GivenLists,
    role: str,
    group: Group,
) -> Reader:
    """Batches of requests of a role."""
    worth = (TARGET_VALUE,) if role == TEST and examples.schema.price else ()
    rows = examples.summary.rows[role]
    size = max(group.world, min(config.evaluation.batch_size, rows))
    return examples.reader(
        role,
        retriever.inputs,
        ReaderConfig(batch_size=size, lanes=group.world),
        extra=(examples.schema.user, HISTORY, TARGET, *worth),
        rank=group.rank,
        world=group.world,
    )


def trainable(config: RunConfig, examples: Examples) -> TrainedRetriever:
    """The run's retriever before its first step, the same for the same seed."""
    seed_all(config.seed)
    retriever = build(config.retriever, config.embeddings, examples, config.seed)
    assert isinstance(retriever, TrainedRetriever)
    return retriever


def _prepared(config: RunConfig, group: Group, *, refit: bool = False) -> Examples:
    """One process writes the examples, the others wait and read them."""
    if group.leads:
        prepare(config, refit=refit)
    group.barrier()
    return prepare(config, refit=refit)


def _trainer(
    config: RunConfig,
    trainer: TrainerConfig,
    retriever: TrainedRetriever,
    examples: Examples,
    group: Group,
    folder: Path,
    listener: TrainingProgress,
    validate: Validate | None,
) -> Trainer:
    reader = retriever.training_reader(
        examples, config.reader, seed=config.seed, rank=group.rank, world=group.world
    )
    return Trainer(
        retriever,
        reader,
        trainer,
        group,
        folder,
        validate=validate,
        listener=listener,
        planned_epochs=config.trainer.epochs,
    )


def _claim(config: RunConfig, folder: Path, resume: bool) -> None:
    """Mark the folder as this config's; clear it for a fresh start."""
    if not resume:
        for old in (folder, folder.with_name("checkpoints_refit")):
            shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).write_text(config.fingerprint)
