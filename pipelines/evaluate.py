"""Checkpoints -> figures and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from feature_store.progress import stage
from pipelines.evaluation_progress import EvaluationProgress
from pipelines.funnel_table import funnel_table
from pipelines.ingest import ingest_log
from pipelines.metrics_table import metrics_table
from pipelines.printer import print_whole, printer
from pipelines.tracked_page import tracked
from recsys.config import RunConfig
from recsys.evaluation.ceiling import sentences
from recsys.report.report import write_report
from recsys.runs.measure import measure, measure_lists
from recsys.runs.same_training import check_same_training
from recsys.runs.verdict import VERDICT, advice, sentence
from recsys.runs.work import Work, working_on
from recsys.tracking import Tracker


def evaluate(config: RunConfig) -> None:
    """Measure a trained run and its baselines, write the report, and print a table.

    Raises DataError when it was not trained, ConfigError when the folder holds a training of
    another config or another program holds it.
    """
    check_same_training(config)
    with working_on(config) as work, tracked(work) as tracker:
        evaluate_in(work, tracker, printer())


def evaluate_in(work: Work, tracker: Tracker, console: Console) -> None:
    """`evaluate` in a run that is held already."""
    _show(work, tracker, measure(work, tracker, EvaluationProgress()), console)


def evaluate_lists(
    config: RunConfig, recommendations: Path | pd.DataFrame, name: str | None = None
) -> None:
    """Measure lists made elsewhere under a config's data and protocol, as retriever `name` of the
    run; nothing is trained."""
    check_same_training(config)
    with working_on(config, "cpu") as work, tracked(work) as tracker:
        ingest_log(config)
        results = measure_lists(work, tracker, recommendations, name, EvaluationProgress())
        _show(work, tracker, results, printer())


def _show(work: Work, tracker: Tracker, results: dict[str, Any], console: Console) -> None:
    """The leading process writes the report, keeps it and its pictures as artifacts, and prints."""
    if work.group.leads:
        with stage("write the report"):
            tracker.log_files(write_report(work.files.path), work.files.plots)
        print_whole(metrics_table(results), console)
        if (stages := funnel_table(results)) is not None:
            print_whole(stages, console)
        lines = sentences(results)
        if outcome := results.get(VERDICT):
            tried = advice(work.config, work.files, outcome)
            lines += [sentence(work.config.model.name, outcome), *(f"  {line}" for line in tried)]
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
