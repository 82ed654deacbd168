"""How far the training of a run's folder has come.

A training begins with the marker `checkpoints/training.toml`, which says what config makes it, and
ends with `training.json`, which appears whole once the last phase has its last checkpoint. Whatever
trains on, removes the record first, but for one of another log, which alone says so of the
checkpoints; whatever trains anew, removes the record, then the checkpoints. So, however a program
ends, the folder holds

    nothing       no whole checkpoint: a training begins
    a stopped     checkpoints without a record, or a record of other checkpoints, other lengths, or
    training      of a log that has changed since: it goes on when that is asked for
    a finished    checkpoints, and a record of all that the config asks for: its weights are used
    training      as they are
    another's     checkpoints of a config that makes other weights: never touched unasked
"""

from __future__ import annotations

from collections.abc import Sequence

import tomli_w

from feature_store.durable import discard, read_json, write_text
from feature_store.errors import ConfigError, DataError, command
from recsys.config import RunConfig
from recsys.runs.build import is_trained
from recsys.runs.folder import MAIN_PHASE, RunFolder
from recsys.runs.log import open_log
from recsys.runs.phases import Phase, phases_of
from recsys.runs.same_training import (
    check_same_training,
    differences,
    has_checkpoints,
    told,
)
from recsys.training import checkpoint

REACHED = "checkpoints"
"""What the record calls the checkpoints that it is of."""


def check_start(config: RunConfig, *, resume: bool, fresh: bool) -> None:
    """What can be said before the log is looked at.

    Raises ConfigError when both are asked for, and without `fresh` when the folder holds a
    training of another config.
    """
    if resume and fresh:
        raise ConfigError("--resume goes on and --fresh begins anew: choose one")
    if not fresh:
        check_same_training(config)


def left_to_train(config: RunConfig, *, resume: bool, fresh: bool) -> bool:
    """Whether there is something to train: False where the folder holds a finished training.

    A training begins where there is none, and where `fresh` asks for it; one that was stopped goes
    on with `resume`, and so does a finished one, which may have become longer. A retriever in
    closed form is always fitted anew.

    Raises ConfigError as `check_start`, and when there is a training that was stopped, and neither
    is asked for.
    """
    check_start(config, resume=resume, fresh=fresh)
    files = RunFolder(config.folder)
    checkpoints = files.phase(MAIN_PHASE).checkpoints
    if resume or fresh or not is_trained(config) or not has_checkpoints(files):
        return True
    if (why := _unfinished(config, files)) is None:
        return False
    raise ConfigError(
        f"{checkpoints} holds a training that {why}: go on with --resume, or train anew with "
        "--fresh"
    )


def mark(config: RunConfig, files: RunFolder, *, record_stays: bool = False) -> None:
    """Begin a training, or go on with one: the checkpoints are this config's from now on."""
    if not record_stays:
        files.training_record.unlink(missing_ok=True)
    files.training_marker.parent.mkdir(parents=True, exist_ok=True)
    write_text(tomli_w.dumps(config.training), files.training_marker)


def clear(files: RunFolder) -> None:
    """Remove the training that is there, or what a program left of it."""
    files.training_record.unlink(missing_ok=True)
    for checkpoints in files.checkpoints:
        discard(checkpoints)


def unfinished(config: RunConfig) -> str | None:
    """Why a run's model cannot be used as it is; None where it can."""
    files = RunFolder(config.folder)
    there = files.phase(phases_of(config.trainer)[0].name).examples.exists()
    if is_trained(config):
        there = has_checkpoints(files)
    if not there:
        return "was not trained"
    why = _unfinished(config, files) if is_trained(config) else None
    return None if why is None else f"holds a training that {why}"


def check_finished(name: str, part: RunConfig) -> None:
    """Raises DataError where the model of a run that the option `name` names cannot be used."""
    if why := unfinished(part):
        raise DataError(
            f"{name}: {part.folder} {why}: run `{command('recsys', 'run', part.folder)}` first"
        )


def reached(files: RunFolder, phases: Sequence[Phase]) -> dict[str, str | None]:
    """The newest checkpoint of each phase, by its name."""
    newest = {p.name: checkpoint.newest(files.phase(p.name).checkpoints) for p in phases}
    return {name: None if path is None else path.name for name, path in newest.items()}


def _unfinished(config: RunConfig, files: RunFolder) -> str | None:
    """What is missing; None where the training is finished."""
    record = read_json(files.training_record)
    now = reached(files, phases_of(config.trainer))
    if not record or not now.items() >= (record.get(REACHED) or {}).items():
        return "was stopped"
    if differing := differences(config):
        return f"was made with other options ({told(differing)})"
    if of_another_log(config, files):
        return "was made from the event log as it was before"
    return None


def of_another_log(config: RunConfig, files: RunFolder) -> bool:
    """Whether the training is finished, but the log has changed since."""
    record = read_json(files.training_record)
    if not record:
        return False
    log, _ = open_log(config)
    return bool(record.get("log_fingerprint", log.fingerprint) != log.fingerprint)


def check_same_log(config: RunConfig) -> None:
    """Raises ConfigError when the weights that are there have not seen the log as it is now."""
    if of_another_log(config, RunFolder(config.folder)):
        raise ConfigError(
            f"{config.folder} holds a training of the event log as it was before, whose figures "
            "would be of events and items that it never saw: train on with --resume and more "
            "trainer.epochs, or anew with --fresh"
        )
