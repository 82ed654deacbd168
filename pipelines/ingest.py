"""Raw input -> event log, whole or day by day."""

from __future__ import annotations

from pathlib import Path

from feature_store.engine import EngineConfig
from feature_store.ingest import Appended, IngestReport, append, ingest
from feature_store.progress import bar
from feature_store.sources import Source
from recsys.config import RunConfig
from recsys.runs.asked_of_log import check_log


def ingest_source(
    source: Source,
    folder: Path,
    *,
    quarantine: bool = False,
    replace: bool = False,
    engine: EngineConfig | None = None,
) -> IngestReport:
    """Ingest with a progress bar; a log that is there already and up to date is left alone."""
    total_bytes, total_rows = source.total_bytes, source.total_rows
    with bar(f"ingest {source.source}", total_bytes=total_bytes, total_rows=total_rows) as progress:  # type: ignore[attr-defined]
        return ingest(
            source,
            folder,
            quarantine=quarantine,
            replace=replace,
            progress=progress,
            engine=engine,
        )


def append_source(
    source: Source,
    folder: Path,
    *,
    quarantine: bool = False,
    engine: EngineConfig | None = None,
) -> Appended:
    """Add to the log that is there, with a progress bar; see `feature_store.ingest.append`."""
    total_bytes, total_rows = source.total_bytes, source.total_rows
    with bar(f"append {source.source}", total_bytes=total_bytes, total_rows=total_rows) as progress:  # type: ignore[attr-defined]
        return append(source, folder, quarantine=quarantine, progress=progress, engine=engine)


def ingest_log(config: RunConfig) -> IngestReport:
    """The event log of a run, as its config says, ingested where it is not up to date.

    Raises ConfigError, before any row is read, for columns that the log will not have.
    """
    check_log(config, config.data.schema)
    return ingest_source(
        config.data, config.store_folder, quarantine=config.quarantine, engine=config.engine
    )


def describe(report: IngestReport) -> str:
    """A report in one line, and a line for each doubt about the data."""
    text = f"{report.events.stored:,} events"
    if report.distinct_users is not None:  # as earlier versions did not count
        text += f" of {report.distinct_users:,} users and {report.distinct_items:,} items"
    known = {"users": report.users.stored, "items": report.items.stored}
    listed = [f"{count:,} {name}" for name, count in known.items() if count]
    text += f"; attributes of {' and '.join(listed)}" if listed else ""
    text += f"; in {report.seconds:.1f} s"
    if report.reasons:
        reasons = ", ".join(f"{count:,} x {reason}" for reason, count in report.reasons.items())
        text += f"; set aside in quarantine.parquet: {reasons}"
    if report.renamed:
        others = ", ".join(f"{column!r} is {name!r}" for column, name in report.renamed.items())
        text += f"; features that are called otherwise than their columns: {others}"
    return "\n".join([text, *(f"doubtful: {doubt}" for doubt in report.doubts)])


def describe_append(done: Appended) -> str:
    """What an append did, in one line."""
    text = f"{done.events.stored:,} new events of {done.events.read:,}"
    counts = {
        "that the log held": done.repeated,
        "late": done.late,
        "new items": done.new_items,
        "new users": done.new_users,
    }
    text += "".join(f"; {count:,} {name}" for name, count in counts.items() if count)
    if done.first is not None:
        text += f"; from {done.first:%Y-%m-%d %H:%M} to {done.last:%Y-%m-%d %H:%M}"
    text += f"; compared with {done.compared:,} of the log, in {done.seconds:.1f} s"
    if done.reasons:
        reasons = ", ".join(f"{count:,} x {reason}" for reason, count in done.reasons.items())
        text += f"; set aside in quarantine: {reasons}"
    return text
