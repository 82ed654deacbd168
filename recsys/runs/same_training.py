"""Whose checkpoints a run's folder holds: another config must not go on from them by mistake."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

from feature_store.errors import ConfigError
from recsys.config import RunConfig, parse_config
from recsys.config.load import read_toml
from recsys.runs.folder import RunFolder
from recsys.training import checkpoint

# what says nothing of the weights that a training ends with
_INDIFFERENT = (
    *("trainer.keep", "trainer.checkpoint_every_steps", "trainer.background_checkpoint_mb"),
    *("trainer.device", "trainer.allow_feature_changes", "reader.workers"),
    "embeddings.tables.*.sharding",
)
# what may differ when a training goes on, or its weights are used
_FREE = (
    *("trainer.epochs", "trainer.steps", "trainer.patience", "trainer.validate_every"),
    *("trainer.phases.*.epochs", "trainer.phases.*.steps", "trainer.phases.*.patience"),
    "embeddings.tables.*.rows",
)
_FEATURES = ("retriever.*_features", "ranker.*_features")  # where that is allowed


def check_same_training(config: RunConfig) -> None:
    """Raises ConfigError, naming what differs, when the run's folder holds a training of another
    config.

    Lengths of training and sizes of tables may differ, features where that is allowed, and phases
    may follow behind those that were trained.
    """
    differing = differences(config)
    free = _FREE + (_FEATURES if config.trainer.allow_feature_changes else ())
    free += tuple(
        f"{name.removesuffix('name')}*"
        for name, how in differing.items()
        if fnmatch(name, "trainer.phases.*.name") and how.startswith("was unset")
    )
    differing = {name: how for name, how in differing.items() if not _any(name, free)}
    if differing:
        raise ConfigError(
            f"{RunFolder(config.folder).training_marker.parent} holds checkpoints of another "
            f"config ({told(differing)}): use that config, choose another name, or train anew "
            "with --fresh"
        )


def differences(config: RunConfig) -> dict[str, str]:
    """How the options of a training differ from those that made the checkpoints of the run, by
    name; nothing where there are none.

    Raises ConfigError when what is kept of those options cannot be read.
    """
    marker = RunFolder(config.folder).training_marker
    if not marker.exists() or not has_checkpoints(RunFolder(config.folder)):
        return {}
    made_by = read_toml(marker)
    before, now = (
        dict(_leaves(tree)) for tree in (_with_defaults(made_by, config), config.training)
    )
    return {
        name: f"was {before.get(name, 'unset')}, now {now.get(name, 'unset')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not _any(name, _INDIFFERENT)
    }


def has_checkpoints(files: RunFolder) -> bool:
    """Whether any phase of a run has a whole checkpoint."""
    return any(checkpoint.newest(folder) is not None for folder in files.checkpoints)


def told(differing: dict[str, str]) -> str:
    """Some of them, for a message."""
    return "; ".join([f"{name} {how}" for name, how in differing.items()][:4])


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _with_defaults(made_by: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """With the defaults of options that are newer than the checkpoints."""
    try:
        return parse_config({**config.to_dict(), **made_by}).training
    except ConfigError:  # of other models, or with options that are no more
        return made_by


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
            value = {str(number): part for number, part in enumerate(value)}  # of phases
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
