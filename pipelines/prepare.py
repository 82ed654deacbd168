"""Event log -> examples of a run, and the retrievers built over them."""

from __future__ import annotations

import json
from pathlib import Path

from feature_store.catalogue import Catalogue
from feature_store.engine import connect
from feature_store.event_log import EventLog
from feature_store.examples import write_examples
from feature_store.protocols import LEARNT, TRAIN
from feature_store.splits import make_split
from recsys.config import RunConfig
from recsys.examples import Examples
from recsys.retrievers import RETRIEVERS


def open_log(config: RunConfig) -> tuple[EventLog, Catalogue]:
    """The run's event log and catalogue. Raises DataError when it was not ingested."""
    log = EventLog.open(config.store_folder)
    return log, Catalogue(log.folder, log.schema)


def prepare(config: RunConfig, *, refit: bool = False) -> Examples:
    """The examples of a run, written unless they are there; `refit` adds validation to train."""
    folder = config.folder / ("examples_refit" if refit else "examples")
    log, catalogue = open_log(config)
    shape = RETRIEVERS[type(config.retriever)].shape
    length = getattr(config.retriever, "max_length", 50)
    wanted = {
        "log": log.fingerprint,
        "split": config.split.model_dump(mode="json"),
        "shape": shape,
        "history_length": length,
    }
    marker = folder / "made_from.json"
    if not _holds(marker, wanted):
        engine = connect()
        write_examples(
            engine,
            make_split(engine, log, config.split),
            catalogue,
            folder,
            shape=shape,
            history_length=length,
            train_roles=LEARNT if refit else (TRAIN,),
        )
        marker.write_text(json.dumps(wanted, indent=2) + "\n")
    return Examples(folder)


def _holds(path: Path, wanted: dict[str, object]) -> bool:
    return path.exists() and json.loads(path.read_text()) == json.loads(json.dumps(wanted))
