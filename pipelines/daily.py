"""A day that came -> a bundle in service: append, warm start, measure, gate, publish a delta."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from feature_store.progress import stage
from pipelines.evaluation_progress import EvaluationProgress
from pipelines.ingest import append_source, describe, describe_append, ingest_source
from pipelines.online import sync_store
from pipelines.progress import console
from pipelines.run import run
from pipelines.tracked_page import tracked
from recsys.config import RunConfig
from recsys.daily.gate import Gate
from recsys.report.days import write_days
from recsys.report.report import write_report
from recsys.runs.days import FIRST, FORCED, HELD, PUBLISHED, Days, begun, cost_of, timed
from recsys.runs.folder import RunFolder
from recsys.runs.in_service import SERVED, STALE, gate_of, served_lists
from recsys.runs.lock import locked
from recsys.runs.measure import measure_lists
from recsys.runs.phases import phases_of
from recsys.runs.prepare import prepare
from recsys.runs.work import working_on
from recsys.serving.releases import CURRENT


def daily(config: RunConfig, *, day: date | None = None, force: bool = False) -> dict[str, Any]:
    """Take a day in, and put what was learned before it into service if the gate lets it pass.

    The first time all that there is makes the log and the first bundle. Whatever stops it, the same
    call goes on. `day` is the one that is the test, by default the newest; `force` publishes what
    the gate holds back. Returns what `days.json` says of the day.

    Raises ConfigError for a config that cannot go on day by day, and as `pipelines.run.run`.
    """
    days, seconds = Days(config), dict[str, float]()
    days.check()
    with locked(RunFolder(days.folder)):
        with timed(seconds, "append"):
            arrived = _take_in(days)
            days.lay_by_user()
        of_day = days.config_of(day or days.newest)
        with timed(seconds, "learn and measure"):
            bundle = run(of_day, **begun(of_day)._asdict()).bundle.resolve()
        told = {"state": FIRST, "reason": "the first bundle", "delta_bytes": 0, "bundle_bytes": 0}
        told |= days.told(of_day.name) | {"day": of_day.name, "arrived": arrived}
        if days.is_new(bundle):
            with timed(seconds, "gate"):
                gate = beside(of_day, days.releases.folder / CURRENT, SERVED)
            state = PUBLISHED if gate.passed else FORCED if force else HELD
            told |= {"gate": gate.model_dump(), "state": state, "reason": gate.reason}
            if config.daily.stale and (first := days.first_bundle) is not None:
                with timed(seconds, "stale"):
                    told["stale"] = beside(of_day, first, STALE).served
        days.record(told)
        if told["state"] != HELD:
            with timed(seconds, "publish"), stage("publish what differs"):
                told |= days.publish(bundle, of_day.name)
        if config.daily.users is not None:
            with timed(seconds, "sync"):
                told["synced"] = sync_store(of_day.folder, config.daily.users)[1].read
        told |= {"rows": cost_of(of_day), "seconds": seconds}
        days.record(told)
        write_days(days.records, days.page)
        days.remove_old()
    return told


def beside(config: RunConfig, bundle: Path, name: str) -> Gate:
    """Measure what a bundle answers to the test of a run, as `name` beside the run's model, and
    hold the model against it."""
    lists = served_lists(config, prepare(config, phases_of(config.trainer)[-1]), bundle)
    with working_on(config, "cpu") as work, tracked(work) as tracker:
        measure_lists(work, tracker, lists, name, EvaluationProgress())
        tracker.log_files(write_report(work.files.path), work.files.plots)
    return gate_of(config, name)


def _take_in(days: Days) -> dict[str, int]:
    """What came joins the log, or makes it."""
    config, store = days.config, days.store
    bad, engine = config.quarantine, config.engine
    if days.begins:
        report = ingest_source(config.data, store, quarantine=bad, engine=engine)
        console.print(f"event log {store}: {describe(report)}", soft_wrap=True)
        return {"stored": report.events.stored, "repeated": 0, "late": 0, "compared": 0}
    done = append_source(config.data, store, quarantine=bad, engine=engine)
    console.print(f"event log {store}: {describe_append(done)}", soft_wrap=True)
    counts = {name: getattr(done, name) for name in ("repeated", "late", "compared")}
    return {"stored": done.events.stored, **counts}
