"""The folder of days that follow one another, and the run that each of them is.

FOLDER/
    store/        the event log, unless `store` says otherwise
    days/DATE/    the run of each newer day: what was learned before it, measured on it
    deltas/       what differed from one bundle in service to the next
    service/      the serving folder
    days.json     what came of every day
    days.html     the same as a page, with its curves
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from feature_store.by_user import ByUser
from feature_store.durable import read_json, write_text
from feature_store.errors import ConfigError, DataError
from feature_store.event_log import EventLog
from feature_store.ingest import REPORT, IngestReport
from feature_store.leftovers import remove_tree
from feature_store.protocols import GlobalTime
from recsys.config import RunConfig, parse_config
from recsys.runs.build import is_trained
from recsys.runs.finished import Run
from recsys.runs.folder import RunFolder
from recsys.runs.log import open_log
from recsys.runs.phases import phases_of
from recsys.runs.prepare import prepare
from recsys.runs.same_training import has_checkpoints
from recsys.runs.standing import of_another_log, unfinished
from recsys.serving.delta.publish import publish_delta
from recsys.serving.files import digest
from recsys.serving.manifest import MANIFEST, Manifest
from recsys.serving.releases import Releases

FIRST, PUBLISHED, FORCED, HELD = "first", "published", "forced", "held back"
"""What became of a day: how its bundle went into service, or that it did not."""


@dataclass(frozen=True)
class Days:
    """The days of a config, in the folder of its run."""

    config: RunConfig

    @property
    def folder(self) -> Path:
        """Where all of them lie."""
        return self.config.folder

    @property
    def store(self) -> Path:
        """The folder of the event log."""
        return self.config.store or self.folder / "store"

    @property
    def begins(self) -> bool:
        """Whether there is no log yet, or it is made of what comes now."""
        if not (self.store / REPORT).exists():
            return True
        made_of = IngestReport.load(self.store).source_fingerprint
        return made_of == self.config.data.fingerprint()

    @property
    def releases(self) -> Releases:
        """The bundles in service."""
        return Releases(self.config.daily.service or self.folder / "service")

    @property
    def page(self) -> Path:
        """All days as a page."""
        return self.folder / "days.html"

    @property
    def records(self) -> list[dict[str, Any]]:
        """What came of every day, in their order."""
        records: list[dict[str, Any]] = read_json(self.folder / "days.json").get("days", [])
        return records

    def told(self, name: str) -> dict[str, Any]:
        """What was written down of a day before, if anything was."""
        return next((record for record in self.records if record["day"] == name), {})

    def record(self, told: dict[str, Any]) -> None:
        """Write down what came of a day, over what was written of it before."""
        others = [record for record in self.records if record["day"] != told["day"]]
        days = sorted([*others, told], key=lambda record: str(record["day"]))
        write_text(json.dumps({"days": days}, indent=2) + "\n", self.folder / "days.json")

    def check(self) -> None:
        """Raises ConfigError, before anything is read, for what cannot go on day by day."""
        if not isinstance(self.config.split, GlobalTime):
            raise ConfigError(
                f"days follow one another under split.protocol = 'global_time', not "
                f"{self.config.split.protocol!r}"
            )
        if self.config.split.test_days != 1:
            raise ConfigError("the test of a day is that day: set split.test_days = 1")
        if self.config.retriever is None:
            raise ConfigError("recsys daily learns a retriever, and this config has none")

    def lay_by_user(self) -> None:
        """Lay what came beside the log by user, from where examples of days are made."""
        if is_trained(self.config):
            ByUser(EventLog.open(self.store))

    @property
    def newest(self) -> date:
        """The newest day of the log."""
        return max(group.last for group in EventLog.open(self.store).row_groups()).date()

    def config_of(self, day: date) -> RunConfig:
        """The run of a day: trained on what was before it, and tested on the day; where a bundle is
        in service, from the weights of its run, and then on the window before the day alone.

        Validation and the window end with the last day before it on which anything happened.
        A day that was begun goes on as it began. Raises DataError as `_start`.
        """
        test = datetime.combine(day, time())
        tree = self.config.to_dict()
        split = tree["split"]
        log = EventLog.open(self.store)
        last = log.last_before(test, self.config.split.event_types)
        end = test if last is None else datetime.combine(last, time()) + timedelta(days=1)
        validation = end - timedelta(days=split.pop("validation_days"))
        del split["test_days"]
        moments = {"validation_start": validation, "test_start": test}
        split |= {name: moment.isoformat() for name, moment in moments.items()}
        tree |= {"name": str(day), "output": str(self.folder / "days"), "store": str(self.store)}
        tree["tracking"]["uri"] = self.config.tracking_uri
        if is_trained(self.config) and (start := self._start(str(day))) is not None:
            since = end - timedelta(days=self.config.daily.window_days)
            lead = getattr(self.config.model, "max_length", 1)  # whole sequences of whoever came
            own = {"start_from": start, "epochs": self.config.daily.epochs, "lead": lead}
            tree["trainer"] |= own | {"since": since.isoformat()}
        return parse_config(tree)

    def _start(self, name: str) -> str | None:
        """The run whose bundle is in service, or that a day had begun from; None of the first.

        Raises DataError where it is gone, and ConfigError where a newer day is in service."""
        own = RunFolder(self.folder / "days" / name)
        if own.config.exists():
            begun_from: str | None = Run(own.path).config["trainer"].get("start_from")
            return begun_from
        current = self.releases.current
        if current is None:
            return None
        run = self.folder / "days" / self._run_of(current)
        if run.name > name:
            raise ConfigError(
                f"{name} is before {run.name}, which is in service: `recsys bundle rollback "
                f"{self.releases.folder}` first, or choose a later --day"
            )
        if not RunFolder(run).config.exists():
            raise DataError(
                f"{self.releases.folder} serves a bundle of {run}, which is not there: bring it "
                "back, or begin anew with another name=..."
            )
        return str(run)

    def _run_of(self, version: str) -> str:
        """The name of the run whose bundle a version is."""
        parts = Manifest.load(self.releases.path(version)).parts
        return next(iter(parts.values())).about.run

    @property
    def first_bundle(self) -> Path | None:
        """The bundle of the first day; None where its run was removed."""
        first = next((told["day"] for told in self.records if told["state"] == FIRST), None)
        bundle = None if first is None else RunFolder(self.folder / "days" / first).bundle
        return bundle.resolve() if bundle is not None and bundle.exists() else None

    def remove_old(self) -> list[str]:
        """Remove runs of older days than the newest `daily.keep_days`; returns their names.

        The runs of versions in service stay, to roll back to and learn from, and that of the first
        day where it is measured; and what any of them began from, so that it can be gone on with.
        """
        there = sorted(path.name for path in (self.folder / "days").iterdir() if _is_day(path.name))
        kept = {
            *there[-self.config.daily.keep_days :],
            *map(self._run_of, self.releases.versions()),
        }
        if self.config.daily.stale:
            kept |= {told["day"] for told in self.records if told["state"] == FIRST}
        runs = [RunFolder(self.folder / "days" / name) for name in kept.intersection(there)]
        begun_from = [
            Run(run.path).config["trainer"].get("start_from") for run in runs if run.config.exists()
        ]
        kept |= {Path(start).name for start in begun_from if start is not None}
        old = [name for name in there if name not in kept]
        for name in old:
            remove_tree(self.folder / "days" / name)
        return old

    def is_new(self, bundle: Path) -> bool:
        """Whether another bundle than this one is in service."""
        current = self.releases.current
        if current is None:
            return False
        return digest(self.releases.path(current) / MANIFEST) != digest(bundle / MANIFEST)

    def publish(self, bundle: Path, name: str) -> dict[str, Any]:
        """Put a day's bundle in service, by what differs from the one before; returns its version
        and what travelled."""
        delta = self.folder / "deltas" / f"{name}.zip"
        keep = self.config.daily.keep
        return publish_delta(bundle, self.releases, delta, keep)._asdict()


def _is_day(name: str) -> bool:
    try:
        date.fromisoformat(name)
    except ValueError:
        return False
    return True


@contextmanager
def timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Add what a part of a day takes to `seconds`."""
    started = perf_counter()
    yield
    seconds[what] = round(perf_counter() - started, 2)


class Begun(NamedTuple):
    """How to go on with a training that may be there: as options of the main job."""

    resume: bool
    fresh: bool


def begun(config: RunConfig) -> Begun:
    """How to train a config, whatever is there of it already."""
    files = RunFolder(config.folder)
    if not has_checkpoints(files):
        return Begun(False, False)
    if of_another_log(config, files):  # more of the day has come since
        return Begun(False, True)
    return Begun(unfinished(config) is not None, False)


def cost_of(config: RunConfig) -> dict[str, int]:
    """Events of the log, those that a day's examples were made of, and the rows that were written
    of them."""
    summary = prepare(config, phases_of(config.trainer)[-1]).summary
    log, _ = open_log(config)
    read = log.num_rows if summary.read is None else summary.read
    return {"log": log.num_rows, "read": read, "written": sum(summary.rows.values())}
