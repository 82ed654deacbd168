"""Config -> figures at several origins: trained and measured anew before each test window."""

from __future__ import annotations

import json
from typing import Any

from feature_store.durable import write_text
from pipelines.evaluate import evaluate
from pipelines.ingest import describe, ingest_log
from pipelines.progress import console
from pipelines.train import train
from recsys.config import RunConfig
from recsys.runs.days import begun
from recsys.runs.finished import Run
from recsys.runs.folder import RunFolder
from recsys.runs.phases import phases_of
from recsys.runs.prepare import prepare
from recsys.runs.rolling import figures_of, origins_of, summarise, window_of
from recsys.runs.steps import FIGURES


def rolling(config: RunConfig, origins: int) -> dict[str, Any]:
    """Train and measure a config at as many origins, the earliest first, and leave `rolling.json`
    in its run's folder; returns what that holds. Origins that are done are not done again.

    Raises ConfigError as `recsys.runs.rolling.origins_of`.
    """
    configs, rows, figures = origins_of(config, origins), [], []
    console.print(f"event log {config.store_folder}: {describe(ingest_log(config))}")
    for number, of_origin in enumerate(configs, 1):
        console.print(f"origin {number} of {origins}: {of_origin.folder}", soft_wrap=True)
        how = begun(of_origin)
        train(of_origin, resume=how.resume, fresh=how.fresh)
        if not FIGURES.is_done(of_origin):
            evaluate(of_origin)
        run = Run(of_origin.folder)
        examples = prepare(of_origin, phases_of(of_origin.trainer)[-1])
        first, last = (moment.isoformat() for moment in window_of(examples))
        asked = examples.summary.rows["test"]
        rows.append({"run": str(run.folder), "from": first, "to": last, "asked": asked})
        figures.append(figures_of(run))
    record = {
        "protocol": config.split.short_name,
        "metric": config.metric,
        "model": config.model.name,
        "origins": rows,
        "figures": summarise(figures),
    }
    path = RunFolder(config.folder).path / "rolling.json"
    write_text(json.dumps(record, indent=2) + "\n", path)
    return record
