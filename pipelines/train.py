"""Examples -> checkpoints: choose the epoch on validation, then refit where that is asked."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from feature_store.columns import HISTORY, LABEL, TARGET, TARGET_VALUE
from feature_store.errors import DataError
from feature_store.protocols import TEST, VALIDATION
from pipelines.prepare import open_log, prepare, start_folder
from pipelines.progress import TrainingProgress
from pipelines.same_training import claim
from recsys import rankers, retrievers
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.data.reader import Reader
from recsys.distributed import Group
from recsys.evaluation.evaluator import Evaluator
from recsys.evaluation.item_facts import ItemFacts
from recsys.evaluation.predictions import Predictions
from recsys.model import Model, TrainedModel
from recsys.rankers.base import Ranker
from recsys.retrievers.base import Retriever
from recsys.tracking import Tracker
from recsys.training import checkpoint
from recsys.training.options import TrainerConfig
from recsys.training.trainer import Trainer, Validate

_SCORED = 8192  # rows that a ranker scores at a time


def seed_all(seed: int) -> None:
    """Seed every random state that training draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def train(config: RunConfig, group: Group, tracker: Tracker, *, resume: bool = False) -> None:
    """Train the run's model; leaves `checkpoints/` and `training.json` in its folder.

    A retriever in closed form has nothing to train here: it is fitted where it is used. Before
    `resume`, call `check_same_training`.
    """
    examples = _prepared(config, group, fresh=not resume)
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
        record_file.unlink(missing_ok=True)  # of another model, perhaps
    if not is_trained(config):
        return
    model = trainable(config, examples)
    folder = config.folder / "checkpoints"
    if group.leads:
        claim(config, resume)
    group.barrier()
    validate = validator(config, examples, group)
    watched = config.metric, config.split.short_name
    with TrainingProgress(group, tracker, "train", *watched) as listener:
        progress = _trainer(
            config, config.trainer, model, examples, group, folder, listener, validate
        ).fit(resume=resume)
    record: dict[str, Any] = {
        "best_epoch": progress.best_epoch,
        "best": progress.best,
        "history": progress.history,
    }
    if config.trainer.refit:
        refit = config.trainer.model_copy(update={"epochs": progress.best_epoch})
        everything = _prepared(config, group, refit=True, fresh=not resume)
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


def is_trained(config: RunConfig) -> bool:
    """Whether the model learns by gradient."""
    return config.model_class.learns_by_gradient


def trained_folder(config: RunConfig) -> Path:
    """The checkpoint that is evaluated and exported. Raises DataError when there is none."""
    folder = config.folder / ("checkpoints_refit" if config.trainer.refit else "checkpoints")
    if checkpoint.newest(folder) is None:
        raise DataError(f"{folder} holds no checkpoint: run `recsys train {config.folder}` first")
    return checkpoint.best(folder)


def validator(config: RunConfig, examples: Examples, group: Group) -> Validate:
    """Full ranking of the validation events by whatever retriever is passed; of a ranker, the
    figures of its predictions."""
    if config.ranker is not None:
        return lambda model: (
            predictions(config, examples, cast(Ranker, model), VALIDATION, group).metrics
        )
    evaluator = make_evaluator(config, examples, VALIDATION)

    def validate(model: Model) -> dict[str, float]:
        retriever = cast(Retriever, model)
        reader = request_reader(config, examples, retriever, VALIDATION, group)
        return evaluator.evaluate(retriever, reader, group).metrics

    return validate


def predictions(
    config: RunConfig, examples: Examples, ranker: Ranker, role: str, group: Group
) -> Predictions:
    """What a ranker predicts of all rows of a role: that an event's label is 1."""
    user = examples.schema.user
    reader = examples.reader(
        role,
        ranker.inputs,
        ReaderConfig(batch_size=_SCORED, lanes=group.world),
        extra=(user, *ranker.judged_by),
        rank=group.rank,
        world=group.world,
    )
    return Predictions.by_task(ranker, reader, user, group)[LABEL]


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
    retriever: Retriever,
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


def trainable(config: RunConfig, examples: Examples) -> TrainedModel:
    """The run's model before its first step, the same for the same seed."""
    return cast(TrainedModel, build_model(config, examples))


def build_model(config: RunConfig, examples: Examples) -> Model:
    """The run's model, as its seed makes it."""
    seed_all(config.seed)
    if config.ranker is not None:
        return rankers.build(config.ranker, config.embeddings, examples, config.seed)
    assert config.retriever is not None
    return retrievers.build(config.retriever, config.embeddings, examples, config.seed)


def _prepared(
    config: RunConfig, group: Group, *, refit: bool = False, fresh: bool = False
) -> Examples:
    """One process writes the examples, the others wait and read them."""
    if group.leads:
        prepare(config, refit=refit, fresh=fresh)
    group.barrier()
    return prepare(config, refit=refit)


def _trainer(
    config: RunConfig,
    trainer: TrainerConfig,
    model: TrainedModel,
    examples: Examples,
    group: Group,
    folder: Path,
    listener: TrainingProgress,
    validate: Validate | None,
) -> Trainer:
    start = start_folder(config, refit=folder.name == "checkpoints_refit")
    reader = model.training_reader(
        examples, config.reader, seed=config.seed, rank=group.rank, world=group.world
    )
    return Trainer(
        model,
        reader,
        trainer,
        group,
        folder,
        validate=validate,
        metric=config.metric,
        listener=listener,
        planned_epochs=config.trainer.epochs,
        start_from=None if start is None else checkpoint.best(start),
    )
