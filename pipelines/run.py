"""The main job: ingest (if needed) -> train -> evaluate -> export -> verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pipelines import evaluate, tracked_page
from pipelines.export import export_in
from pipelines.ingest import describe, ingest_log
from pipelines.progress import console
from pipelines.train import train_in
from recsys.config import RunConfig, load_config, parse_config
from recsys.runs.finished import Run
from recsys.runs.standing import check_start, left_to_train
from recsys.runs.steps import BUNDLE, FIGURES
from recsys.runs.work import Work, working_on
from recsys.tracking import Tracker


def run(
    config: RunConfig | dict[str, Any] | Path | str,
    overrides: list[str] | None = None,
    *,
    resume: bool = False,
    fresh: bool = False,
    force: bool = False,
) -> Run:
    """Run the whole job and return the finished run.

    What is done is not done again: an event log that is up to date is not ingested, a finished
    training is left as it is, and figures and bundle are made where they are missing, or were made
    of something else. `resume` goes on from the newest checkpoint, `fresh` makes all but the event
    log anew, `force` gives the alias also to a model that does not beat its baselines.

    Raises ConfigError as `pipelines.train.train`.
    """
    config = resolve(config, overrides)
    check_start(config, resume=resume, fresh=fresh)
    with working_on(config) as work:
        if work.group.leads:
            _tell(work, f"event log {config.store_folder}: {describe(ingest_log(config))}")
        work.group.barrier()
        begins = left_to_train(config, resume=resume, fresh=fresh)
        anew = begins and not resume and (fresh or not FIGURES.is_done(config))
        with tracked_page.tracked(work, new=anew) as tracker:
            train_in(work, tracker, resume=resume, fresh=fresh)
            _make_figures(work, tracker)
            if work.group.leads:
                _make_bundle(work, tracker, force)
            work.group.barrier()
    return Run(config.folder)


def _make_figures(work: Work, tracker: Tracker) -> None:
    if FIGURES.is_done(work.config) and work.files.report.exists():
        _tell(work, f"figures {work.files.metrics}: there already")
    else:
        evaluate.evaluate_in(work, tracker, console)
    _tell(work, f"report {work.files.report}")


def _make_bundle(work: Work, tracker: Tracker, force: bool) -> None:
    if BUNDLE.is_done(work.config) and not force:
        _tell(work, f"bundle {work.files.bundle}: there already")
    else:
        export_in(work, tracker, force=force)
        _tell(work, f"bundle {work.files.bundle}: verified")


def _tell(work: Work, text: str) -> None:
    if work.group.leads:
        console.print(text, soft_wrap=True)


def evaluate_lists(
    config: RunConfig | dict[str, Any] | Path | str,
    recommendations: Path | pd.DataFrame,
    overrides: list[str] | None = None,
    *,
    name: str | None = None,
) -> Run:
    """Measure lists made elsewhere, and return the run that they have become a retriever of."""
    config = resolve(config, overrides)
    evaluate.evaluate_lists(config, recommendations, name)
    return Run(config.folder)


def resolve(
    config: RunConfig | dict[str, Any] | Path | str, overrides: list[str] | None = None
) -> RunConfig:
    """A RunConfig from whatever describes one. Raises ConfigError."""
    if isinstance(config, RunConfig):
        return parse_config(config.to_dict(), overrides) if overrides else config
    if isinstance(config, dict):
        return parse_config(config, overrides)
    return load_config(config, overrides)
