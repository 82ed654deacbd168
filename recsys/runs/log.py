"""The event log of a run."""

from __future__ import annotations

from feature_store.catalogue import Catalogue
from feature_store.event_log import EventLog
from recsys.config import RunConfig


def open_log(config: RunConfig) -> tuple[EventLog, Catalogue]:
    """The run's event log and catalogue. Raises DataError when it was not ingested."""
    log = EventLog.open(config.store_folder)
    return log, Catalogue(log.folder, log.schema)
