"""Checkpoints, or examples -> the model that has learned from them."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from recsys.compatible.retriever import Compatible
from recsys.compatible.upgrade import upgraded
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.model import Model
from recsys.retrievers.trained import TrainedRetriever
from recsys.runs.build import build_model, fit
from recsys.training import checkpoint
from recsys.training.sharding import shard


def learnt_model(
    config: RunConfig, examples: Examples, checkpoints: Path, group: Group | None = None
) -> Model:
    """The run's model with the best weights below `checkpoints`, or fitted to the examples; where
    it is compatible with a bundle, as it asks that index.

    With a group its large tables are split over it; otherwise this process holds all of them.
    Raises DataError when there is no checkpoint.
    """
    model = build_model(config, examples)
    if not model.learns_by_gradient:
        fit(model, config.model.name, examples)
    elif group is None:
        checkpoint.load_unsharded(checkpoint.best(checkpoints), model)
    else:
        sharded = shard(model, group)
        checkpoint.load(checkpoint.best(checkpoints), sharded, None, group, random=False)
    if config.compatible_with is not None:
        retriever = cast(Compatible | TrainedRetriever, model)
        return upgraded(config.compatible_with, retriever, examples, config.seed)
    return model.eval()
