"""Event log -> a store of users' newest histories."""

from __future__ import annotations

from pathlib import Path

from feature_store.engine import EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.progress import bar
from recsys.online.places import open_store
from recsys.online.rules import KEEP, Rules, make_rules
from recsys.online.store import UserStore
from recsys.online.sync import Synced, sync
from recsys.runs.folder import RunFolder
from recsys.runs.log import open_log
from recsys.runs.moved import config_of
from recsys.runs.online import rules_of


def sync_store(
    source: Path,
    url: str,
    *,
    keep: int | None = None,
    days: float | None = None,
    anew: bool = False,
) -> tuple[UserStore, Synced]:
    """Sync the log of a run, or a log itself, to the store at a URL, with a progress bar.

    The rules of a store are those of the run that made it; a log itself is synced by whatever
    rules there are, or else to a list of all its events. Where more is to be kept than before, the
    log is read from its beginning.
    """
    log, rules, engine, alike = _source(source, keep, days)
    store = open_store(url, rules, alike=alike)
    more = store.limit(keep, days)
    with bar(f"sync {source}", total_rows=log.num_rows) as progress:
        return store, sync(log, store, engine=engine, progress=progress, anew=anew or more)


def _source(
    source: Path, keep: int | None, days: float | None
) -> tuple[EventLog, Rules, EngineConfig | None, bool]:
    """A log, the rules of a store of its events and how its tables are counted, and whether the
    rules are those of a run."""
    if RunFolder(source).config.exists():
        config = config_of(source)
        log, _ = open_log(config)
        return log, rules_of(config, log.schema, keep, days), config.engine, True
    if not (source / "schema.json").exists():
        raise DataError(f"{source} is no run, and no event log made by `recsys ingest`")
    log = EventLog.open(source)
    return log, make_rules(log=log.schema, keep=keep or KEEP, days=days), None, False


def describe(store: UserStore, done: Synced) -> str:
    """A sync in one line."""
    text = f"{store.shown}: {done.read:,} events read, {done.added:,} of them new and kept"
    return text + (f"; features of {done.features:,} users" if done.features else "")
