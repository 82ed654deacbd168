"""The main job: ingest (if needed) -> train -> evaluate -> export -> verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from pipelines.evaluate import evaluate, evaluate_recommendations, metrics_table, report
from pipelines.export import export
from pipelines.ingest import describe, ingest_source
from pipelines.progress import console
from pipelines.same_training import check_same_training
from pipelines.train import train
from recsys.config import RunConfig, load_config, parse_config
from recsys.distributed import Group, join
from recsys.runs.folder import Run
from recsys.tracking import Tracker


def run(
    config: RunConfig | dict[str, Any] | Path | str,
    overrides: list[str] | None = None,
    *,
    resume: bool = False,
) -> Run:
    """Run the whole job and return the finished run.

    An event log that is up to date is not ingested again; with `resume`, training goes on from
    its newest checkpoint. Raises ConfigError when that is of another config.
    """
    config = resolve(config, overrides)
    if resume:
        check_same_training(config)
    with join(config.trainer.device) as group, tracked(config, group, new=not resume) as tracker:
        if group.leads:
            ingested = ingest_source(
                config.data, config.store_folder, quarantine=config.quarantine, engine=config.engine
            )
            console.print(f"event log {config.store_folder}: {describe(ingested)}", soft_wrap=True)
        group.barrier()
        train(config, group, tracker, resume=resume)
        results = evaluate(config, group, tracker)
        if group.leads:
            console.print(metrics_table(results))
            console.print(f"report {report(config, tracker)}", soft_wrap=True)
            export(config, tracker)
            console.print(f"bundle {Run(config.folder).bundle}: verified", soft_wrap=True)
        group.barrier()
    return Run(config.folder)


def evaluate_lists(
    config: RunConfig | dict[str, Any] | Path | str,
    recommendations: Path | pd.DataFrame,
    overrides: list[str] | None = None,
    *,
    name: str | None = None,
) -> Run:
    """Measure lists made elsewhere under a config's data and protocol; nothing is trained.

    They become retriever `name` of the run, beside what it has measured itself.
    """
    config = resolve(config, overrides)
    check_same_training(config)
    with join("cpu") as group, tracked(config, group) as tracker:
        ingest_source(
            config.data, config.store_folder, quarantine=config.quarantine, engine=config.engine
        )
        results = evaluate_recommendations(config, recommendations, group, tracker, name)
        report(config, tracker)
        Console().print(metrics_table(results))
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


class tracked:
    """The tracker of a run while it is worked on; only the leading process records.

    Also claims the run's folder: writes the resolved config and remembers the tracker's run,
    which is continued unless the work is `new`.
    """

    def __init__(self, config: RunConfig, group: Group, *, new: bool = False) -> None:
        self.config, self.group, self.new = config, group, new

    def __enter__(self) -> Tracker:
        config, folder = self.config, self.config.folder
        known = folder / "tracking_id.txt"
        if self.group.leads:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.toml").write_text(config.to_toml())
        self.tracker = Tracker.start(
            experiment=config.tracking.experiment,
            name=config.name,
            uri=config.tracking_uri,
            enabled=config.tracking.enabled and self.group.leads,
            run_id=known.read_text() if known.exists() and not self.new else None,
        )
        if self.group.leads and self.tracker.run_id:
            known.write_text(self.tracker.run_id)
        return self.tracker

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.tracker.finish("FINISHED" if error is None else "FAILED")
