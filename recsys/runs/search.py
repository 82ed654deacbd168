"""A search for the options of the highest validation figure: its trials, and what they leave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, Protocol

from feature_store.durable import write_text
from feature_store.errors import DataError
from feature_store.protocols import VALIDATION
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.figure import looked_at_first
from recsys.runs.build import build_model, fit, is_trained
from recsys.runs.evaluators import validator
from recsys.runs.folder import RunFolder
from recsys.runs.learn import trainer_of
from recsys.runs.phases import phases_of, start_of
from recsys.runs.prepare import prepare
from recsys.runs.search_space import longest, search_space, with_values
from recsys.runs.work import Work
from recsys.tracking import Tracker
from recsys.training import checkpoint
from recsys.training.trainer import Progress, Validate
from recsys.tuning.study import Pruned, Report, Study, Trial, counts

_BOOKKEEPING = ("epoch", "step", "loss", "seconds")  # of the trainer's history


class Watch(Protocol):
    """Who is told of the trials."""

    def epoch(self, report: Report, epoch: int, figure: float) -> None:
        """After every epoch that was validated; hands the figure on to `report`."""

    def trying(self, number: int, values: dict[str, Any]) -> AbstractContextManager[None]:
        """While a trial runs."""

    def ended(self, trial: Trial) -> None:
        """After every trial."""


def examples_of_search(config: RunConfig, files: RunFolder) -> Examples:
    """The examples of all trials, in the search's folder: the longest histories that any of them
    reads, which the others' readers cut. Raises DataError where there is nothing to tune on."""
    where = {"output": files.path.parent, "name": files.path.name, "store": config.store_folder}
    moved = config.model_copy(update=where)
    examples = prepare(longest(moved, search_space(config)))
    if not examples.summary.rows.get(VALIDATION):
        raise DataError(
            f"the {examples.summary.protocol} split leaves no validation events to tune on: "
            "see [split]"
        )
    return examples


def open_study(
    config: RunConfig, examples: Examples, files: RunFolder, *, resume: bool, replace: bool
) -> Study:
    """The search's memory. Raises ConfigError and DataError as `Study.open`."""
    sections = ("data", "quarantine", "retriever", "embeddings", "reader", "trainer", "evaluation")
    tree = config.to_dict()
    return Study.open(
        files.study,
        search_space(config),
        config.tune,
        metric=config.metric,
        seed=config.seed,
        made_from={section: tree[section] for section in sections} | protocol_of(examples),
        resume=resume,
        replace=replace,
        warmup=config.trainer.patience * config.trainer.validate_every,
    )


def search(work: Work, study: Study, examples: Examples, tracker: Tracker, watch: Watch) -> None:
    """Run the trials that are left, each a child of the tracker's run.

    A trial of values that cannot run is kept as failed, with the reason.
    """
    config, checkpoints = work.config, work.files.trial
    validate = validator(config, examples, work.group)

    def objective(number: int, values: dict[str, Any], report: Report) -> dict[str, float]:
        child = tracker.child(f"trial {number}")
        status = "KILLED"  # given up, or stopped from without
        try:
            child.log_config(values)
            listener = _Epochs(watch.epoch, report, config.metric)
            with watch.trying(number, values):
                figures = _try(work, with_values(config, values), examples, validate, listener)
            first = looked_at_first(figures, config.metric)
            child.log_metrics({f"validation/{name}": figures[name] for name in first})
            status = "FINISHED"
        except Pruned:
            raise
        except Exception:
            status = "FAILED"
            raise
        finally:
            child.finish(status)
            shutil.rmtree(checkpoints, ignore_errors=True)
        return figures

    study.search(objective, after=watch.ended)


def _try(
    work: Work, config: RunConfig, examples: Examples, validate: Validate, listener: _Epochs
) -> dict[str, float]:
    """Validation figures of one config: of its best epoch where it learns by gradient."""
    if is_trained(config):
        progress = _train(work, config, examples, validate, listener)
        best = [epoch for epoch in progress.history if epoch["epoch"] == progress.best_epoch]
        if not best:
            raise DataError(f"no epoch reached a {config.metric} that is a number")
        return {name: value for name, value in best[0].items() if name not in _BOOKKEEPING}
    fitted = build_model(config, examples)
    fit(fitted, config.model.name, examples)
    return validate(fitted.to(work.group.device))  # type: ignore[arg-type]


def _train(
    work: Work, config: RunConfig, examples: Examples, validate: Validate, listener: _Epochs
) -> Progress:
    """How the last phase went. Only its epochs are reported: those of the phases before are no
    sign of what it makes of them."""
    folder = work.files.trial
    shutil.rmtree(folder, ignore_errors=True)  # of a trial that was killed
    phases = phases_of(config.trainer.model_copy(update={"refit": False}))
    given = start_of(config, phases[0])
    start = None if given is None else checkpoint.best(given.checkpoints)
    for phase in phases:
        checkpoints, last = folder / phase.name, phase is phases[-1]
        progress = trainer_of(
            config,
            examples,
            work.group,
            checkpoints,
            trainer=phase.trainer,
            validate=validate,
            listener=listener if last else listener.unreported(phase.trainer.metric),
            start_from=start,
            phase=phase.learns,
        ).fit()
        if not last:
            start = checkpoint.best(checkpoints)
    return progress


class _Epochs:
    """The trainer's listener: passes on the figure of every epoch that was validated."""

    def __init__(
        self, watch: Callable[[Report, int, float], None], report: Report, metric: str
    ) -> None:
        self.watch, self.report, self.metric = watch, report, metric

    def unreported(self, metric: str | None) -> _Epochs:
        """Of a phase that no trial is given up in, by its own figure."""
        return _Epochs(self.watch, lambda epoch, figure: None, metric or self.metric)

    def step(self, step: int, steps: int, loss: float, rows: int) -> None:
        """Steps are not shown: trials are."""

    def validated(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
        """Report the epoch; raises Pruned where the trial is given up."""
        if self.metric in metrics:
            self.watch(self.report, epoch, metrics[self.metric])

    def note(self, text: str) -> None:
        """There is nothing to note of a trial."""


def write_search(config: RunConfig, study: Study, examples: Examples, files: RunFolder) -> None:
    """Write what was tried, and the config of the best where any trial was finished."""
    record = _record(config, study, examples)
    write_text(json.dumps(record, indent=2) + "\n", files.search_record)
    files.tuned_config.unlink(missing_ok=True)  # of a search that was replaced
    if study.best is not None:
        write_text(_tuned(config, record), files.tuned_config)


def best_trial(record: dict[str, Any]) -> dict[str, Any]:
    """The best trial of `tuning.json`. Raises DataError where none was finished."""
    if record["best"] is None:
        reasons = list(dict.fromkeys(trial["reason"] for trial in record["trials"]))
        raise DataError(
            f"none of {counts(record['trials'])} could be finished: {'; '.join(reasons[:3])}"
        )
    return record["trials"][record["best"] - 1]


def track_best(record: dict[str, Any], best: dict[str, Any], tracker: Tracker) -> None:
    """The figures of the best trial, and what the search has found, in the search's own run."""
    first = looked_at_first(best["figures"], record["metric"])
    tracker.log_metrics({f"validation/{name}": best["figures"][name] for name in first})
    tracker.describe(
        f"The options of {record['retriever']} with the highest validation {record['metric']}, "
        f"{best['value']:.4f} ({record['protocol']}), are in `tuned.toml` under *Artifacts*; "
        f"{counts(record['trials'])}."
    )


def protocol_of(examples: Examples) -> dict[str, str]:
    """What figures on these examples may be compared by."""
    summary = examples.summary
    return {"protocol": summary.protocol, "protocol_fingerprint": summary.fingerprint}


def _record(config: RunConfig, study: Study, examples: Examples) -> dict[str, Any]:
    """What `tuning.json` holds."""
    best = study.best
    return {
        "name": config.name,
        "retriever": config.model.name,
        "metric": config.metric,
        "sampler": config.tune.sampler,
        "seed": config.seed,
        **protocol_of(examples),
        "space": {n: d.model_dump(exclude_none=True) for n, d in search_space(config).items()},
        "best": None if best is None else best.number,
        "trials": [asdict(trial) for trial in study.trials],
    }


def _tuned(config: RunConfig, record: dict[str, Any]) -> str:
    """The full config with the best values, as TOML that says how they were found."""
    best = best_trial(record)
    return (
        f"# Validation {record['metric']} {best['value']:.4f} ({record['protocol']}, "
        f"{record['protocol_fingerprint']}), trial {best['number']} of {len(record['trials'])}, "
        f"sampler {record['sampler']}, seed {record['seed']}.\n"
        + with_values(config, best["values"]).to_toml()
    )
