"""The phases of a run's training, one after the other; and the model that they end in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from feature_store.durable import read_json, write_text
from feature_store.errors import DataError, command
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.model import Model
from recsys.runs.asked_of_examples import check_examples
from recsys.runs.assemble import assemble, open_parts
from recsys.runs.build import is_trained
from recsys.runs.calibration import calibrated
from recsys.runs.evaluators import validator
from recsys.runs.folder import MAIN_PHASE, RunFolder
from recsys.runs.learn import trainer_of
from recsys.runs.learnt import learnt_model
from recsys.runs.log import open_log
from recsys.runs.phases import Phase, phases_of, start_of
from recsys.runs.prepare import keep_ids, prepare, prepare_together
from recsys.runs.standing import (
    REACHED,
    check_same_log,
    clear,
    left_to_train,
    mark,
    of_another_log,
    reached,
)
from recsys.runs.work import Work
from recsys.tracking import Tracker
from recsys.training import checkpoint
from recsys.training.trainer import Listener, Progress

Listen = Callable[[Phase], AbstractContextManager[Listener | None]]
"""Makes whoever is told of a phase's progress; asked on the leading process alone."""

_HISTORY = "history"


def fit(
    work: Work,
    tracker: Tracker,
    *,
    phases: Sequence[Phase] | None = None,
    resume: bool = False,
    fresh: bool = False,
    listen: Listen = lambda phase: nullcontext(),
) -> bool:
    """Train the run's model, phase by phase; leaves checkpoints and `training.json`.

    Returns False where the training was finished already: then nothing is touched. With `resume`
    one that was stopped goes on, or a finished one is trained longer; with `fresh` whatever is
    there is removed, and the training begins anew. A retriever in closed form has nothing to train
    here: it is fitted where it is used.

    Raises ConfigError as `recsys.runs.standing.left_to_train`, and where a finished training was to
    go on over a log that has changed, but is as long as asked for already.
    """
    config, group, files = work.config, work.group, work.files
    phases = phases or phases_of(config.trainer)
    if not left_to_train(config, resume=resume, fresh=fresh):
        return False
    group.barrier()  # all have looked before anything changes
    if group.leads and not resume:
        clear(files)
    if group.leads and fresh:
        files.steps_done.unlink(missing_ok=True)
    examples = prepare_together(config, phases[0], group, fresh=not resume)
    log, _ = open_log(config)
    tracker.log_config(
        {
            **config.to_dict(),
            "run_fingerprint": config.fingerprint,
            "data_fingerprint": log.fingerprint,
            "protocol_fingerprint": examples.summary.fingerprint,
        }
    )
    tracker.describe(f"**{config.model.name}** on {config.data.source}, {config.split.short_name}.")
    if not is_trained(config):
        return True
    check_examples(config, examples, group.world)
    stale = of_another_log(config, files)
    trained_to = read_json(files.training_record).get(REACHED) or reached(files, phases)
    group.barrier()  # all have read the record
    if group.leads:
        mark(config, files, record_stays=stale)
    group.barrier()
    ended: dict[str, Progress] = {}
    for phase in phases:
        if phase is not phases[0]:
            examples = prepare_together(config, phase, group, fresh=not resume)
        ended[phase.name] = _train(work, phase, examples, ended, resume, listen)
    if stale and reached(files, phases) == trained_to:
        check_same_log(config)
    if group.leads:
        record = _record(phases, ended) | {"log_fingerprint": log.fingerprint}
        record |= {REACHED: reached(files, phases)}
        write_text(json.dumps(record, indent=2) + "\n", files.training_record)
    group.barrier()
    return True


def _train(
    work: Work,
    phase: Phase,
    examples: Examples,
    ended: Mapping[str, Progress],
    resume: bool,
    listen: Listen,
) -> Progress:
    config, group, trainer = work.config, work.group, phase.trainer
    if phase.as_long_as is not None:
        epochs = ended[phase.as_long_as.name].best_epoch
        trainer = trainer.model_copy(update={"epochs": epochs})
    start = start_of(config, phase)
    if group.leads:
        keep_ids(work.files.phase(phase.name), examples)
    with listen(phase) if group.leads else nullcontext() as listener:
        return trainer_of(
            config,
            examples,
            group,
            work.files.phase(phase.name).checkpoints,
            trainer=trainer,
            validate=validator(config, examples, group) if phase.validated else None,
            listener=listener,
            planned_epochs=phase.trainer.epochs,
            start_from=None if start is None else checkpoint.best(start.checkpoints),
            phase=phase.learns,
        ).fit(resume=resume)


def _record(phases: Sequence[Phase], ended: Mapping[str, Progress]) -> dict[str, Any]:
    """What `training.json` holds; keys of other phases than the main one, or the last where it is
    not among them, begin with their names."""
    record: dict[str, Any] = {}
    names = [phase.name for phase in phases]
    main = MAIN_PHASE if MAIN_PHASE in names else names[-1]
    for phase in phases:
        whose, progress = "" if phase.name == main else f"{phase.name}_", ended[phase.name]
        if phase.validated:
            record[f"{whose}best_epoch"] = progress.best_epoch
            record[f"{whose}best"] = progress.best
        record[f"{whose}{_HISTORY}"] = progress.history
    return record


def training_seconds(files: RunFolder) -> float | None:
    """Seconds of all epochs of all phases, without validation; None where they are not known."""
    record = read_json(files.training_record)
    if not record:  # stopped between the last epoch and its record
        return None
    histories = [epochs for key, epochs in record.items() if key.endswith(_HISTORY)]
    return sum(epoch["seconds"] for history in histories for epoch in history)


def trained_model(config: RunConfig, group: Group | None = None) -> tuple[Model, Examples]:
    """The run's model with the best weights of its last phase, or fitted, or made of finished runs,
    and the examples it knows.

    With a group its large tables are split over it; otherwise this process holds all of them.
    Raises DataError when it was not trained, and ConfigError when the log has changed since.
    """
    if is_trained(config):
        check_same_log(config)
    phase = phases_of(config.trainer)[-1]
    examples = prepare(config, phase) if group is None else prepare_together(config, phase, group)
    if config.cascade is not None:
        parts = open_parts(config, examples, lambda part: whole_model(part, group))
        return assemble(config, examples, parts), examples
    checkpoints = RunFolder(config.folder).phase(phase.name).checkpoints
    if is_trained(config) and checkpoint.newest(checkpoints) is None:
        raise DataError(
            f"{checkpoints} holds no checkpoint: run "
            f"`{command('recsys', 'train', config.folder)}` first"
        )
    return learnt_model(config, examples, checkpoints, group), examples


def whole_model(part: RunConfig, group: Group | None = None) -> tuple[Model, Examples]:
    """The model of a part of a cascade, which every process holds whole: not all of them would ask
    it equally often; a ranker as its run calibrates it."""
    if group is not None:
        prepare_together(part, phases_of(part.trainer)[-1], group)
    model, examples = trained_model(part)
    return calibrated(part, model, examples, keep=False), examples
