"""The calibration of a run's ranker: fitted on validation, and kept beside its weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from feature_store.durable import read_json, write_text
from feature_store.errors import ConfigError
from feature_store.negatives import log_draws
from feature_store.protocols import VALIDATION
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.model import Model
from recsys.rankers.base import Ranker
from recsys.rankers.calibrated import Calibrated
from recsys.runs.evaluators import predictions
from recsys.runs.folder import RunFolder
from recsys.runs.learnt import learnt_model
from recsys.runs.phases import phases_of
from recsys.runs.prepare import prepare, prepare_together
from recsys.runs.weights import TRAINING, training_of
from recsys.statistics.calibration import FITS, Curve

Curves: TypeAlias = dict[str, Curve]
"""A curve for each task."""


def calibrated(config: RunConfig, model: Model, examples: Examples, *, keep: bool = True) -> Model:
    """The run's model, in this process alone, with calibrated logits where the run asks for them,
    and without what drawn negatives have added to them.

    Raises as `curves_of`.
    """
    if config.ranker is None:
        return model
    ranker = cast(Ranker, model)
    curves = curves_of(config, ranker, examples, keep=keep)
    drawn = log_draws_of(config, examples)
    return Calibrated(ranker, curves, drawn) if curves or drawn is not None else ranker


def log_draws_of(config: RunConfig, examples: Examples) -> Tensor | None:
    """Of every item row [N] what undoes the drawn negatives of the run, float32.

    None where none were drawn, where the run wants them to stay, and where the log has 0s of its
    own beside them: there is no telling how many of those a pair would have.
    """
    negatives = config.labels.negatives
    if negatives is None or not config.calibration.undo_drawn:
        return None
    positive = examples.training_labels() == 1
    if (~positive).sum() > negatives.per_positive * positive.sum():
        return None
    events = examples.train_events[1:].numpy()
    log = torch.from_numpy(log_draws(negatives, events)).float()
    return torch.cat([log.mean(0, keepdim=True), log])  # an unknown item is like any


def curves_of(
    config: RunConfig,
    ranker: Ranker,
    examples: Examples,
    group: Group | None = None,
    *,
    keep: bool = True,
) -> Curves:
    """The curves of a trained ranker: those in the run's folder, if they were fitted to these
    weights, or else fitted now, and kept there if `keep`; none where the run asks for none.

    They are fitted to what the ranker predicts of validation. After a refit, which has seen
    that, it is the ranker before the refit that they are fitted to. Raises ConfigError where
    the run holds no validation out.
    """
    kind = config.calibration.kind
    if kind == "none":
        return {}
    files = RunFolder(config.folder)
    training = training_of(files)
    if (kept := _kept(files, kind, training)) is not None:
        return kept
    unseen, known = _before_refit(config, ranker, examples, group)
    if not known.summary.rows.get(VALIDATION):
        raise ConfigError(
            f"calibration.kind = {kind!r} is fitted on validation, and this split has none: set "
            "calibration.kind = 'none'"
        )
    alone = group or Group(0, 1, torch.device("cpu"))
    tasks = predictions(config, known, unseen.to(alone.device), VALIDATION, alone)
    curves, rows = {}, {}
    for task, predicted in tasks.items():
        told = np.isfinite(predicted.labels)
        curves[task] = FITS[kind](predicted.logits[told], predicted.labels[told])
        rows[task] = int(told.sum())
    if keep and alone.leads and training is not None:
        record = {
            "kind": kind,
            TRAINING: training,
            "rows": rows,
            "tasks": {task: asdict(curve) for task, curve in curves.items()},
        }
        write_text(json.dumps(record, indent=2) + "\n", files.calibration)
    return curves


def _kept(files: RunFolder, kind: str, training: str | None) -> Curves | None:
    """None where there are none, or they are of another kind or other weights, or are damaged."""
    record = read_json(files.calibration)
    if training is None or (record.get("kind"), record.get(TRAINING)) != (kind, training):
        return None
    try:
        return {
            task: Curve(**{name: tuple(map(float, of)) for name, of in curve.items()})
            for task, curve in record["tasks"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _before_refit(
    config: RunConfig, ranker: Ranker, examples: Examples, group: Group | None
) -> tuple[Ranker, Examples]:
    """The ranker, and the examples, of the phase that has not learned from validation."""
    first, *later = phases_of(config.trainer)
    if not later:
        return ranker, examples
    known = prepare(config, first) if group is None else prepare_together(config, first, group)
    checkpoints = RunFolder(config.folder).phase(first.name).checkpoints
    return cast(Ranker, learnt_model(config, known, checkpoints, group)), known
