"""Config and examples -> a model that has learned from them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.model import TrainedModel
from recsys.rankers.hcn import HCN
from recsys.runs.build import trainable
from recsys.runs.folder import MAIN_PHASE
from recsys.runs.teacher import teacher_of
from recsys.training import checkpoint
from recsys.training.options import TrainerConfig
from recsys.training.trainer import Listener, Progress, Trainer, Validate


class Learnt(NamedTuple):
    """A model with its best weights, and how they came about."""

    model: TrainedModel
    progress: Progress

    @property
    def seconds(self) -> float:
        """Of all epochs, without validation."""
        return sum(epoch["seconds"] for epoch in self.progress.history)


def trainer_of(
    config: RunConfig,
    examples: Examples,
    group: Group,
    checkpoints: Path,
    *,
    trainer: TrainerConfig | None = None,
    validate: Validate | None = None,
    listener: Listener | None = None,
    planned_epochs: int | None = None,
    start_from: Path | None = None,
    phase: str = MAIN_PHASE,
) -> Trainer:
    """A trainer of the run's model before its first step, in one of its phases; `trainer` is for
    other options than the config's, the rest as `Trainer` has it."""
    teacher = teacher_of(config, examples, group)
    model = trainable(config, examples)  # last: it seeds what is drawn
    if teacher is not None:
        cast(HCN, model).learn_from(teacher)
    model.begin_phase(phase)
    reader = model.training_reader(
        examples, config.reader, seed=config.seed, rank=group.rank, world=group.world
    )
    return Trainer(
        model,
        reader,
        trainer or config.trainer,
        group,
        checkpoints,
        metric=config.metric,
        validate=validate,
        listener=listener,
        planned_epochs=planned_epochs,
        start_from=start_from,
    )


def learn(
    config: RunConfig,
    examples: Examples,
    group: Group,
    checkpoints: Path,
    *,
    validate: Validate | None = None,
    listener: Listener | None = None,
) -> Learnt:
    """Train the run's model, and take the epoch that validation chose, or else the last."""
    progress = trainer_of(
        config, examples, group, checkpoints, validate=validate, listener=listener
    ).fit()
    model = trainable(config, examples)
    checkpoint.load_unsharded(checkpoint.best(checkpoints), model)
    model.eval()
    return Learnt(model, progress)
