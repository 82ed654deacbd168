"""A run while a program works on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from feature_store.durable import write_text
from recsys.config import RunConfig
from recsys.distributed import Group, join
from recsys.runs.folder import RunFolder
from recsys.runs.lock import locked_together
from recsys.tracking import Tracker


@dataclass(frozen=True)
class Work:
    """A run whose folder this program holds, and the processes that work on it together."""

    config: RunConfig
    group: Group
    files: RunFolder

    @contextmanager
    def tracked(self, *, new: bool = False) -> Iterator[Tracker]:
        """The tracker of the run, in which only the leading process records.

        The run's folder has the resolved config from now on, and remembers the tracker's run,
        which is continued unless the work is `new`.
        """
        config, files, leads = self.config, self.files, self.group.leads
        if leads:
            write_text(config.to_toml(), files.config)
        remembered = files.tracking_id
        tracker = Tracker.start(
            experiment=config.tracking.experiment,
            name=config.name,
            uri=config.tracking_uri,
            enabled=config.tracking.enabled and leads,
            run_id=remembered.read_text() if remembered.exists() and not new else None,
        )
        begun = tracker.run_id
        if leads and begun:
            write_text(begun, remembered)
        status = "KILLED"  # by a signal, unless it ends otherwise
        try:
            yield tracker
            status = "FINISHED"
        except Exception:
            status = "FAILED"
            raise
        finally:
            tracker.finish(status)
            if leads and tracker.run_id and tracker.run_id != begun:  # its server came late
                write_text(tracker.run_id, remembered)


@contextmanager
def working_on(
    config: RunConfig, device: str | None = None, files: RunFolder | None = None
) -> Iterator[Work]:
    """Join the processes that were started together, by default on the trainer's device, and hold
    the run's folder, or the one that is given.

    Raises ConfigError on all of them when another program holds it.
    """
    with join(device or config.trainer.device) as group:
        work = Work(config, group, files or RunFolder(config.folder))
        with locked_together(work.files, group):
            yield work
