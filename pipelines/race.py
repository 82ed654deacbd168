"""Config -> which retriever suits its log."""

from __future__ import annotations

from typing import Any

from feature_store.errors import ConfigError
from pipelines.ingest import describe, ingest_log
from pipelines.progress import console
from recsys.config import RunConfig
from recsys.runs.folder import RunFolder
from recsys.runs.race import Entry, race
from recsys.runs.race_record import write_race
from recsys.runs.search_space import judged_by
from recsys.runs.work import working_on


def race_retrievers(config: RunConfig, *, replace: bool = False) -> dict[str, Any]:
    """Let the retrievers of `tune.retrievers` race over the config's data, on validation alone.

    Leaves `race.json` and `chosen.toml` in the run's folder; returns what `race.json` holds.

    Raises:
        ConfigError: there was a race already and `replace` is not set, or another program holds
            the run's folder.
        DataError: none of them could run.
    """
    config = judged_by(config)
    with working_on(config) as work:
        if work.group.world > 1:
            raise ConfigError("tuning runs in one process: start it without torchrun")
        record = RunFolder(config.folder).race_record
        if record.exists() and not replace:
            raise ConfigError(f"{record} holds a race: begin anew with --replace")
        report = ingest_log(config)
        console.print(f"event log {config.store_folder}: {describe(report)}", soft_wrap=True)
        return write_race(config, race(work, _Lines()), work.files)


class _Lines:
    """A line for every fit and every epoch."""

    def went_on(self, entry: Entry) -> None:
        """Print how it is doing."""
        epoch = f" epoch {entry.epochs}" if entry.epochs else ""
        figure = "none yet" if entry.value == float("-inf") else f"{entry.value:.4f}"
        outcome = entry.reason or f"best {entry.config.metric} {figure}"
        console.print(
            f"{entry.name}{epoch}: {outcome}  ({entry.seconds:.1f} s)", soft_wrap=True, markup=False
        )
