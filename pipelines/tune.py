"""Config -> tuned config: a search for the options of the highest validation figure."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from feature_store.errors import ConfigError, DataError
from feature_store.protocols import VALIDATION
from pipelines.ingest import describe, ingest_source
from pipelines.prepare import prepare
from pipelines.progress import console
from pipelines.train import build_model, is_trained, trainable, validator
from pipelines.tuning_report import TuningProgress, best_trial, draw
from recsys.config import RunConfig, parse_config
from recsys.data.examples import Examples
from recsys.distributed import Group, join
from recsys.tracking import Tracker
from recsys.training.trainer import Trainer, Validate
from recsys.tuning.options import Domain
from recsys.tuning.study import Pruned, Report, Study

_STUDY = "tuning.db"
_NOT_TUNED = ("retriever.name", "trainer.metric")  # what is tuned, and what is compared
_BOOKKEEPING = ("epoch", "step", "loss", "seconds")  # of the trainer's history


def for_retriever(
    config: RunConfig, name: str, overrides: list[str] | None = None
) -> tuple[RunConfig, Path]:
    """Another retriever over the data and split of a config, and the folder of its search.

    The retriever has its defaults, changed by `overrides` alone, and its own search space. The
    run that its tuned config describes is called CONFIG_RETRIEVER. Raises ConfigError.
    """
    tree = config.to_dict() | {"retriever": {"name": name}}
    tree.pop("ranker", None)
    tree["tune"].pop("space", None)
    other = parse_config(tree, overrides)
    renamed = other.model_copy(update={"name": f"{other.name}_{name}"})
    return renamed, other.folder / "tuning" / name


def tune(
    config: RunConfig, folder: Path | None = None, *, resume: bool = False, replace: bool = False
) -> dict[str, Any]:
    """Search for the best values of the options in the search space, on validation alone.

    Leaves `tuning.json`, `tuned.toml`, `plots/tuning.png` and the study `tuning.db` in the
    run's folder, or in `folder`; returns what `tuning.json` holds. A trial of values that
    cannot run is kept as failed, with the reason.

    Raises:
        ConfigError: the search space does not fit the config, or there is a search already and
            neither `resume` nor `replace` is set.
        DataError: no trial could be finished.
    """
    if resume and replace:
        raise ConfigError("--resume goes on and --replace begins anew: choose one")
    if config.retriever is None:
        raise ConfigError(
            "this config has a ranker, and recsys tune searches options of retrievers"
        )
    folder = folder or config.folder
    metric = config.tune.metric or config.metric
    if metric not in config.evaluation.figures:
        raise ConfigError(
            f"tune.metric: {metric!r} is not measured with these evaluation settings; "
            f"choose one of: {', '.join(config.evaluation.figures)}"
        )
    # The epoch of a trial is chosen by the figure that trials are compared by.
    config = with_values(config, {"trainer.metric": metric})
    space = search_space(config)
    with join(config.trainer.device) as group:
        if group.world > 1:
            raise ConfigError("tuning runs in one process: start it without torchrun")
        report = ingest_source(
            config.data, config.store_folder, quarantine=config.quarantine, engine=config.engine
        )
        console.print(f"event log {config.store_folder}: {describe(report)}", soft_wrap=True)
        examples = prepare(_longest(_moved(config, folder), space))
        if not examples.summary.rows.get(VALIDATION):
            raise DataError(
                f"the {examples.summary.protocol} split leaves no validation events to tune on: "
                "see [split]"
            )
        study = Study.open(
            folder / _STUDY,
            space,
            config.tune,
            metric=metric,
            seed=config.seed,
            made_from=_made_from(config, examples),
            resume=resume,
            replace=replace,
            warmup=config.trainer.patience * config.trainer.validate_every,
        )
        tracker = Tracker.start(
            experiment=config.tracking.experiment,
            name=f"tune {config.name}",
            uri=config.tracking_uri,
            enabled=config.tracking.enabled,
            run_id=study.note,
        )
        status = "FAILED"
        try:
            study.note = tracker.run_id or study.note
            tracker.log_config(config.to_dict() | _protocol(examples))
            _search(config, study, examples, group, tracker, folder / "trial")
            found = _leave(config, study, examples, folder, tracker)
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            tracker.finish(status)
    return found


def search_space(config: RunConfig) -> dict[str, Domain]:
    """What is tried, by option: `[tune.space]`, or what the retriever's config proposes.

    Every bound and choice is put into the config once. Raises ConfigError, naming the option
    that is unknown, may not be tuned, or does not allow a value.
    """
    assert config.retriever is not None
    kind, name = type(config.retriever), config.retriever.name
    proposed = kind.search_space
    space = config.tune.space or {
        f"retriever.{key}": Domain.model_validate(domain) for key, domain in proposed.items()
    }
    options = [option for option in kind.model_fields if option != "name"]
    if not space and not options:
        raise ConfigError(f"retriever {name!r} has no options: there is nothing to tune")
    if not space:
        raise ConfigError(
            f"retriever {name!r} proposes no search space: name options under [tune.space], such "
            f'as "retriever.{options[0]}" = {{low = 1, high = 10}}; known: {", ".join(options)}'
        )
    sections = ["retriever"]
    if config.model_class.learns_by_gradient:
        sections += ["embeddings", "reader", "trainer"]
    for key, domain in space.items():
        if key in _NOT_TUNED or (
            key.split(".")[0] in RunConfig.model_fields and key.split(".")[0] not in sections
        ):
            raise ConfigError(
                f"tune.space: {key} cannot be tuned for {name!r}; what can are the options of: "
                f"{', '.join(sections)}"
            )
        for value in domain.extremes:
            with_values(config, {key: value}, where="tune.space")
    return space


def with_values(config: RunConfig, values: dict[str, Any], where: str = "config") -> RunConfig:
    """The config with some options set, by dotted name. Raises ConfigError as `parse_config`."""
    overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return parse_config(config.to_dict(), overrides, where=where)


def _search(
    config: RunConfig, study: Study, examples: Examples, group: Group, tracker: Tracker, aside: Path
) -> None:
    """Run the trials, each a child of the tracker's run; checkpoints lie `aside` meanwhile."""
    validate = validator(config, examples, group)

    def objective(number: int, values: dict[str, Any], report: Report) -> dict[str, float]:
        child = tracker.child(f"trial {number}")
        status = "FAILED"
        try:
            child.log_config(values)
            tried = with_values(config, values)
            watch = partial(progress.epoch, report)
            figures = _measure(tried, examples, group, validate, watch, aside)
            child.log_metrics({f"validation/{name}": v for name, v in figures.items()})
            status = "FINISHED"
        except (KeyboardInterrupt, Pruned):
            status = "KILLED"
            raise
        finally:
            child.finish(status)
            shutil.rmtree(aside, ignore_errors=True)
        return figures

    done, best = len(study.trials), study.best
    with TuningProgress(config.tune.trials, config.metric, done, best) as progress:
        study.search(objective, after=progress.ended)


def _measure(
    config: RunConfig,
    examples: Examples,
    group: Group,
    validate: Validate,
    watch: Report,
    aside: Path,
) -> dict[str, float]:
    """Validation figures of one config: of its best epoch where it learns by gradient."""
    if is_trained(config):
        retriever = trainable(config, examples)
        reader = retriever.training_reader(
            examples, config.reader, seed=config.seed, rank=group.rank, world=group.world
        )
        listener = _Epochs(watch, config.metric)
        shutil.rmtree(aside, ignore_errors=True)  # of a trial that was killed
        progress = Trainer(
            retriever, reader, config.trainer, group, aside, validate=validate, listener=listener
        ).fit()
        best = [one for one in progress.history if one["epoch"] == progress.best_epoch]
        if not best:
            raise DataError(f"no epoch reached a {config.metric} that is a number")
        return {name: value for name, value in best[0].items() if name not in _BOOKKEEPING}
    fitted = build_model(config, examples)
    fitted.fit(examples.interactions(), examples)
    return validate(fitted.to(group.device))  # type: ignore[arg-type]


class _Epochs:
    """The trainer's listener: passes on the figure of every epoch that was validated."""

    def __init__(self, watch: Report, metric: str) -> None:
        self.watch, self.metric = watch, metric

    def step(self, step: int, steps: int, loss: float, rows: int) -> None:
        """Steps are not shown: trials are."""

    def validated(self, epoch: int, step: int, metrics: dict[str, float]) -> None:
        """Report the epoch; raises Pruned where the trial is given up."""
        if self.metric in metrics:
            self.watch(epoch, metrics[self.metric])

    def note(self, text: str) -> None:
        """There is nothing to note of a trial."""


def _leave(
    config: RunConfig, study: Study, examples: Examples, folder: Path, tracker: Tracker
) -> dict[str, Any]:
    """Write and track what the search found. Raises DataError where no trial was finished."""
    found = _record(config, study, examples)
    record, tuned = folder / "tuning.json", folder / "tuned.toml"
    record.write_text(json.dumps(found, indent=2) + "\n")
    drawn = draw(found, folder / "plots" / "tuning.png")
    tracker.log_files(record)
    tracker.log_files(drawn, folder="plots")
    tuned.unlink(missing_ok=True)  # of a search that was replaced
    best = best_trial(found)
    tuned.write_text(_tuned(config, found))
    tracker.log_files(tuned)
    tracker.log_metrics({f"validation/{name}": v for name, v in best["figures"].items()})
    return found


def _record(config: RunConfig, study: Study, examples: Examples) -> dict[str, Any]:
    """What `tuning.json` holds."""
    best = study.best
    return {
        "name": config.name,
        "retriever": config.model.name,
        "metric": config.metric,
        "sampler": config.tune.sampler,
        "seed": config.seed,
        **_protocol(examples),
        "space": {n: d.model_dump(exclude_none=True) for n, d in search_space(config).items()},
        "best": None if best is None else best.number,
        "trials": [asdict(trial) for trial in study.trials],
    }


def _protocol(examples: Examples) -> dict[str, str]:
    summary = examples.summary
    return {"protocol": summary.protocol, "protocol_fingerprint": summary.fingerprint}


def _tuned(config: RunConfig, found: dict[str, Any]) -> str:
    """The full config with the best values, as TOML that says how they were found."""
    best = best_trial(found)
    return (
        f"# Validation {found['metric']} {best['value']:.4f} ({found['protocol']}, "
        f"{found['protocol_fingerprint']}), trial {best['number']} of {len(found['trials'])}, "
        f"sampler {found['sampler']}, seed {found['seed']}.\n"
        + with_values(config, best["values"]).to_toml()
    )


def _made_from(config: RunConfig, examples: Examples) -> dict[str, Any]:
    """What decides a trial's figures, beside its values."""
    parts = ("data", "quarantine", "retriever", "embeddings", "reader", "trainer", "evaluation")
    tree = config.to_dict()
    return {part: tree[part] for part in parts} | _protocol(examples)


def _moved(config: RunConfig, folder: Path) -> RunConfig:
    """The config with `folder` as its run's, over the same event log."""
    where = {"output": folder.parent, "name": folder.name, "store": config.store_folder}
    return config.model_copy(update=where)


def _longest(config: RunConfig, space: dict[str, Domain]) -> RunConfig:
    """The config of the longest history: its examples serve all trials, whose readers cut."""
    lengths = space.get("retriever.max_length")
    if lengths is None:
        return config
    return with_values(config, {"retriever.max_length": max(lengths.extremes)})
