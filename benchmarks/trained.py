"""What benchmarks of quality share: a config is trained, and the epoch that validation chose is
measured on the test."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from feature_store.protocols import TEST
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.evaluation.evaluator import Result
from recsys.model import Model
from recsys.retrievers.base import VectorRetriever
from recsys.runs.evaluators import make_evaluator, request_reader, validator
from recsys.runs.learn import Learnt, learn
from recsys.statistics.bootstrap import mean_intervals

CONFIGS = Path(__file__).parents[1] / "pipelines" / "configs"


def train(config: RunConfig, examples: Examples, group: Group, folder: Path) -> Learnt:
    """Train, and take the epoch that validation chose; checkpoints are not kept."""
    with tempfile.TemporaryDirectory(dir=folder) as checkpoints:
        validate = validator(config, examples, group)
        return learn(config, examples, group, Path(checkpoints), validate=validate)


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
