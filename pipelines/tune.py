"""Config -> tuned config: a search for the options of the highest validation figure."""

from __future__ import annotations

import json
from typing import Any

from feature_store.errors import ConfigError
from pipelines.ingest import describe, ingest_log
from pipelines.progress import console
from pipelines.tracked_page import tell_page
from pipelines.tuning_progress import TuningProgress
from recsys.config import RunConfig
from recsys.report.search_chart import draw_search
from recsys.runs.folder import RunFolder
from recsys.runs.search import (
    best_trial,
    examples_of_search,
    open_study,
    protocol_of,
    search,
    track_best,
    write_search,
)
from recsys.runs.search_space import judged_by, search_space
from recsys.runs.work import Work, working_on
from recsys.tracking import Tracker


def tune(
    config: RunConfig,
    files: RunFolder | None = None,
    *,
    resume: bool = False,
    replace: bool = False,
) -> dict[str, Any]:
    """Search for the best values of the options in the search space, on validation alone.

    Leaves `tuning.json`, `tuned.toml`, `plots/tuning.png` and the study `tuning.db` in the
    run's folder, or in that of a search within it; returns what `tuning.json` holds.

    Raises:
        ConfigError: the search space does not fit the config, there is a search already and
            neither `resume` nor `replace` is set, or another program holds the run's folder.
        DataError: no trial could be finished.
    """
    if resume and replace:
        raise ConfigError("--resume goes on and --replace begins anew: choose one")
    config = judged_by(config)
    search_space(config)  # fits, or there is nothing to begin
    with working_on(config, files=files) as work:
        if work.group.world > 1:
            raise ConfigError("tuning runs in one process: start it without torchrun")
        report = ingest_log(config)
        console.print(f"event log {config.store_folder}: {describe(report)}", soft_wrap=True)
        return _tune(work, resume, replace)


def _tune(work: Work, resume: bool, replace: bool) -> dict[str, Any]:
    config, files = work.config, work.files
    examples = examples_of_search(config, files)
    study = open_study(config, examples, files, resume=resume, replace=replace)
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
        tracker.log_config(config.to_dict() | protocol_of(examples))
        trials, done, best = config.tune.trials, len(study.trials), study.best
        with TuningProgress(trials, config.metric, done, best) as progress:
            search(work, study, examples, tracker, progress)
        write_search(config, study, examples, files)
        record = _keep(files, tracker)
        tell_page(tracker)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)
    return record


def _keep(files: RunFolder, tracker: Tracker) -> dict[str, Any]:
    """Draw and track what was found. Raises DataError where no trial was finished."""
    record = json.loads(files.search_record.read_text())
    tracker.log_files(files.search_record)
    tracker.log_files(draw_search(record, files.search_plot), folder="plots")
    best = best_trial(record)
    tracker.log_files(files.tuned_config)
    track_best(record, best, tracker)
    return record
