"""What benchmarks of quality share: a config is trained, and the epoch that validation chose is
measured on the test."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feature_store.protocols import TEST
from pipelines.train import make_evaluator, request_reader, trainable, validator
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.evaluation.evaluator import Result
from recsys.model import Model, TrainedModel
from recsys.retrievers.base import VectorRetriever
from recsys.statistics.bootstrap import mean_intervals
from recsys.training import checkpoint
from recsys.training.trainer import Progress, Trainer

CONFIGS = Path(__file__).parents[1] / "pipelines" / "configs"


class Trained(NamedTuple):
    """A model with its best weights, and how they were found."""

    model: TrainedModel
    progress: Progress

    @property
    def seconds(self) -> float:
        """Of all epochs."""
        return sum(epoch["seconds"] for epoch in self.progress.history)


def train(config: RunConfig, examples: Examples, group: Group, folder: Path) -> Trained:
    """Train, and take the epoch that validation chose; checkpoints are not kept."""
    model = trainable(config, examples)
    reader = model.training_reader(
        examples, config.reader, seed=config.seed, rank=group.rank, world=group.world
    )
    with tempfile.TemporaryDirectory(dir=folder) as checkpoints:
        validate = validator(config, examples, group)
        trainer = Trainer(
            model,
            reader,
            config.trainer,
            group,
            Path(checkpoints),
            validate=validate,
            metric=config.metric,
        )
        progress = trainer.fit()
        best = trainable(config, examples)
        checkpoint.load_unsharded(checkpoint.best(Path(checkpoints)), best)
    return Trained(best.eval(), progress)


def test(config: RunConfig, examples: Examples, group: Group, model: Model) -> Result:
    """Full ranking of the test by a retriever, users in the order of their rows."""
    assert isinstance(model, VectorRetriever)
    requests = request_reader(config, examples, model, TEST, group)
    found = make_evaluator(config, examples, TEST).evaluate(model, requests, group)
    order = np.argsort(found.users["user"])
    for name, values in found.users.items():
        found.users[name] = values[order]
    return found


def interval(values: np.ndarray, scale: float = 100.0, digits: int = 2) -> list[float]:
    """Mean of values [U] without NaN, and the ends of its 95 % interval; by default in per cent."""
    low, high = mean_intervals(values[:, None])
    return [
        round(scale * float(figure), digits) for figure in (np.nanmean(values), low[0], high[0])
    ]
