"""Config -> the run's model, as its seed makes it."""

from __future__ import annotations

import random
from typing import cast

import numpy as np
import torch

from feature_store.errors import ConfigError
from feature_store.progress import stage
from recsys import rankers, retrievers
from recsys.compatible.upgrade import learning
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.model import Model, TrainedModel
from recsys.retrievers.trained import TrainedRetriever


def seed_all(seed: int) -> None:
    """Seed every random state that training draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def is_trained(config: RunConfig) -> bool:
    """Whether the model learns by gradient."""
    return config.model_class.learns_by_gradient


def build_model(config: RunConfig, examples: Examples) -> Model:
    """The run's model, as its seed makes it."""
    seed_all(config.seed)
    if config.ranker is not None:
        return rankers.build(config.ranker, config.embeddings, examples, config.seed)
    if config.retriever is None:
        raise ConfigError("a cascade is made of finished runs, and has no weights of its own")
    retriever = retrievers.build(config.retriever, config.embeddings, examples, config.seed)
    if config.compatible_with is None:
        return retriever
    return learning(
        config.compatible_with, cast(TrainedRetriever, retriever), examples, config.seed
    )


def fit(model: Model, name: str, examples: Examples) -> None:
    """Fit a model in closed form to the training events, and tell where that takes long."""
    events = examples.interactions()
    cost = model.fit_cost(events)
    about, what = (None, "") if cost is None else (cost.seconds, f", {cost.what}")
    with stage(f"fit {name}{what}", about):
        model.fit(events, examples)


def trainable(config: RunConfig, examples: Examples) -> TrainedModel:
    """The run's model before its first step, the same for the same seed."""
    return cast(TrainedModel, build_model(config, examples))
