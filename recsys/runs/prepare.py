"""Event log -> the examples of a phase."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from feature_store.catalogue import Catalogue
from feature_store.durable import restore, write_text
from feature_store.engine import Engine
from feature_store.event_log import EventLog
from feature_store.examples import write_examples
from feature_store.splits import make_split
from feature_store.vocabulary import Vocabulary
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.runs.asked_of_log import check_log
from recsys.runs.folder import PhaseFolder, RunFolder
from recsys.runs.phases import Phase, phases_of, start_of

_MARKER = "made_from.json"


def open_log(config: RunConfig) -> tuple[EventLog, Catalogue]:
    """The run's event log and catalogue. Raises DataError when it was not ingested."""
    log = EventLog.open(config.store_folder)
    return log, Catalogue(log.folder, log.schema)


def prepare(config: RunConfig, phase: Phase | None = None, *, fresh: bool = False) -> Examples:
    """The examples of a phase, by default of the first, written unless they are there.

    Where the log has grown since they were written, known ids keep their rows: what was trained
    on them stays right. A `fresh` training numbers all ids anew, but for those of the phase that
    it starts from.

    Raises ConfigError for columns that the log does not have.
    """
    phase = phase or phases_of(config.trainer)[0]
    files = RunFolder(config.folder).phase(phase.name)
    log, catalogue = open_log(config)
    check_log(config, log.schema)
    restore(files.examples)
    base = _known_ids(config, phase, files, fresh)
    labels = config.labels if config.rows_of.labels else None
    wanted = {
        "log": log.fingerprint,
        "catalogue": catalogue.fingerprint,
        "split": config.split.model_dump(mode="json"),
        "labels": labels.model_dump(mode="json") if labels else None,
        "since": config.trainer.since.isoformat() if config.trainer.since else None,
        "rows_of": asdict(config.rows_of),
        "history_length": getattr(config.model, "max_length", 50),
        "base": {table: vocabulary.fingerprint for table, vocabulary in base.items()},
    }
    marker = files.examples / _MARKER
    if not _holds(marker, wanted, fresh):
        with Engine(config.engine) as engine:
            write_examples(
                engine,
                make_split(engine, log, config.split, labels),
                catalogue,
                files.examples,
                rows_of=config.rows_of,
                history_length=getattr(config.model, "max_length", 50),
                train_roles=phase.examples,
                since=config.trainer.since,
                base=base,
            )
        write_text(json.dumps(wanted, indent=2) + "\n", marker)
    return Examples(files.examples)


def prepare_together(
    config: RunConfig, phase: Phase, group: Group, *, fresh: bool = False
) -> Examples:
    """`prepare` on several processes: one writes the examples, the others wait and read them."""
    if group.leads:
        prepare(config, phase, fresh=fresh)
    group.barrier()
    return prepare(config, phase)


def _known_ids(
    config: RunConfig, phase: Phase, files: PhaseFolder, fresh: bool
) -> dict[str, Vocabulary]:
    """Ids that keep their rows: those of the examples that are there, or of the phase before."""
    if not fresh and files.vocabularies.exists():
        source = files
    elif (start := start_of(config, phase)) is not None:
        source = start
    else:
        return {}
    paths = sorted(source.vocabularies.glob("*.arrow"))
    return {path.stem: Vocabulary.load(path) for path in paths}


def _holds(marker: Path, wanted: dict[str, Any], fresh: bool) -> bool:
    if not marker.exists():
        return False
    made_from = json.loads(marker.read_text())
    if not fresh:  # whatever they were made from, their own ids are the ones to keep
        made_from, wanted = (
            {key: value for key, value in tree.items() if key != "base"}
            for tree in (made_from, wanted)
        )
    return made_from == json.loads(json.dumps(wanted))
