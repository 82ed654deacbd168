"""Which training the weights of a run's folder come from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from feature_store.durable import read_json
from feature_store.errors import command
from recsys.config.load import read_toml
from recsys.runs.folder import RunFolder
from recsys.serving.manifest import About

TRAINING = "training"
"""What `metrics.json` calls it."""


def training_of(files: RunFolder) -> str | None:
    """Sixteen hex digits over the record of the finished training: over the losses and figures of
    its epochs, not the seconds they took, so that the same training has the same.

    None where none is finished, or the model is fitted where it is used. Of a cascade it is over
    those of all its parts, and the options of those that are fitted.
    """
    if parts := _parts(files):
        of_parts = {name: [_learnt(run), training_of(run)] for name, run in parts.items()}
        return _digest(of_parts)
    record = read_json(files.training_record)  # nothing, too, where it is not whole
    return _digest(_timeless(record)) if record else None


def identity_of(files: RunFolder) -> str | None:
    """Sixteen hex digits over a run's training and the options that decide what it has learned,
    which tell it from others wherever it lies; None where there is no run."""
    if not files.config.exists():
        return None
    return _digest([_learnt(files), training_of(files)])


def of_other_weights(folder: Path, about: About) -> str | None:
    """What to know of a run's bundle where the run was trained again since; None where all is
    well."""
    files = RunFolder(folder)
    if not files.bundle.exists() or about.training in (None, training_of(files)):
        return None
    return (
        f"{folder} was trained again since its bundle was made, which answers here as before: "
        f"`{command('recsys', 'run', folder)}` makes it of the new weights"
    )


def _digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def _parts(files: RunFolder) -> dict[str, RunFolder]:
    """The runs of a cascade's parts; none where the run is of no cascade."""
    cascade = _config(files).get("cascade", {})
    rankers = {stage: cascade[stage] for stage in ("coarse", "fine") if stage in cascade}
    parts = {**cascade.get("generators", {}), **rankers}
    return {name: RunFolder(Path(part["run"])) for name, part in parts.items()}


def _learnt(files: RunFolder) -> dict[str, Any]:
    """The options that decide what a part has learned."""
    models = ("retriever", "ranker", "embeddings", "calibration")
    sections = ("seed", "data", "split", "labels", *models)
    return {name: part for name, part in _config(files).items() if name in sections}


def _config(files: RunFolder) -> dict[str, Any]:
    return read_toml(files.config) if files.config.exists() else {}


def _timeless(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _timeless(value) for key, value in tree.items() if key != "seconds"}
    return [_timeless(value) for value in tree] if isinstance(tree, list) else tree
