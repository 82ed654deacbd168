"""Event log -> examples of a run."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from feature_store.catalogue import Catalogue
from feature_store.durable import restore, write_text
from feature_store.engine import Engine
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples import write_examples
from feature_store.protocols import LEARNT, TRAIN
from feature_store.splits import make_split
from feature_store.vocabulary import Vocabulary
from recsys.config import RunConfig
from recsys.data.examples import Examples
from recsys.runs.folder import Run

_MARKER = "made_from.json"


def open_log(config: RunConfig) -> tuple[EventLog, Catalogue]:
    """The run's event log and catalogue. Raises DataError when it was not ingested."""
    log = EventLog.open(config.store_folder)
    return log, Catalogue(log.folder, log.schema)


def prepare(config: RunConfig, *, refit: bool = False, fresh: bool = False) -> Examples:
    """The examples of a run, written unless they are there; `refit` adds validation to train.

    Where the log has grown since they were written, known ids keep their rows: what was trained
    on them stays right. A `fresh` training numbers all ids anew, but for those of the run that
    it starts from.
    """
    folder = config.folder / ("examples_refit" if refit else "examples")
    log, catalogue = open_log(config)
    restore(folder)
    base = _vocabularies(config, folder, refit, fresh)
    labels = config.labels if config.rows_of.labels else None
    wanted = {
        "log": log.fingerprint,
        "split": config.split.model_dump(mode="json"),
        "labels": labels.model_dump(mode="json") if labels else None,
        "since": config.trainer.since.isoformat() if config.trainer.since else None,
        "rows_of": asdict(config.rows_of),
        "history_length": getattr(config.model, "max_length", 50),
        "base": {table: vocabulary.fingerprint for table, vocabulary in base.items()},
    }
    if not _holds(folder / _MARKER, wanted, fresh):
        with Engine(config.engine) as engine:
            write_examples(
                engine,
                make_split(engine, log, config.split, labels),
                catalogue,
                folder,
                rows_of=config.rows_of,
                history_length=getattr(config.model, "max_length", 50),
                train_roles=LEARNT if refit else (TRAIN,),
                since=config.trainer.since,
                base=base,
            )
        write_text(json.dumps(wanted, indent=2) + "\n", folder / _MARKER)
    return Examples(folder)


def start_folder(config: RunConfig, refit: bool) -> Path | None:
    """The checkpoints that a run starts from: those of a run that has the same data and split have
    seen no more than this one may see by now. Raises DataError where that run has none."""
    if config.trainer.start_from is None:
        return None
    run = Run(config.trainer.start_from)
    had_refit = run.config.get("trainer", {}).get("refit", False)
    now = config.to_dict()
    same = all(run.config.get(part) == now[part] for part in ("data", "split"))
    refit = had_refit and (refit or not same)
    folder = run.folder / ("checkpoints_refit" if refit else "checkpoints")
    if not folder.exists():
        raise DataError(
            f"trainer.start_from = {config.trainer.start_from}: that run has no checkpoints; "
            f"run `recsys train {run.folder}` first"
        )
    return folder


def _vocabularies(
    config: RunConfig, folder: Path, refit: bool, fresh: bool
) -> dict[str, Vocabulary]:
    """Ids that keep their rows: those of the examples that are there, or of the run before."""
    known = folder / "vocabulary"
    if fresh or not known.exists():
        checkpoints = start_folder(config, refit)
        if checkpoints is None:
            return {}
        known = checkpoints.with_name(checkpoints.name.replace("checkpoints", "examples"))
        known = known / "vocabulary"
    return {path.stem: Vocabulary.load(path) for path in sorted(known.glob("*.arrow"))}


def _holds(marker: Path, wanted: dict[str, Any], fresh: bool) -> bool:
    if not marker.exists():
        return False
    found = json.loads(marker.read_text())
    if not fresh:  # whatever they were made from, their own ids are the ones to keep
        found, wanted = ({k: v for k, v in one.items() if k != "base"} for one in (found, wanted))
    return found == json.loads(json.dumps(wanted))
