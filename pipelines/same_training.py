"""Whose checkpoints a run's folder holds: another config must not go on from them by mistake."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from typing import Any

import tomli_w

from feature_store.errors import ConfigError
from recsys.config import RunConfig, parse_config

_MARKER = "training.toml"  # beside the checkpoints: the part of the config that made them
# what may differ when a training goes on, or its weights are used
_FREE = (
    *("trainer.epochs", "trainer.steps", "trainer.patience", "trainer.validate_every"),
    *("trainer.keep", "trainer.checkpoint_every_steps", "trainer.background_checkpoint_mb"),
    *("trainer.device", "trainer.allow_feature_changes", "reader.workers"),
    *("embeddings.tables.*.rows", "embeddings.tables.*.sharding"),
)
_FEATURES = ("retriever.*_features", "ranker.*_features")  # where that is allowed


def check_same_training(config: RunConfig) -> None:
    """Raises ConfigError, naming what differs, when the run's folder holds a training of another
    config.

    Lengths of training and sizes of tables may differ, and features where that is allowed.
    """
    marker = config.folder / "checkpoints" / _MARKER
    if not marker.exists():
        return
    try:
        made_by = tomllib.loads(marker.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{marker} cannot be read: {error}") from None
    before, now = (
        dict(_leaves(tree)) for tree in (_with_defaults(made_by, config), config.training)
    )
    free = _FREE + (_FEATURES if config.trainer.allow_feature_changes else ())
    differing = [
        name
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not any(fnmatch(name, one) for one in free)
    ]
    if differing:
        told = [f"{n} was {before.get(n, 'unset')}, now {now.get(n, 'unset')}" for n in differing]
        raise ConfigError(
            f"{marker.parent} holds checkpoints of another config ({'; '.join(told[:4])}): use "
            "that config, or choose another name"
        )


def claim(config: RunConfig, resume: bool) -> None:
    """Mark the run's checkpoints as this config's; clear them for a fresh start."""
    folder = config.folder / "checkpoints"
    if not resume:
        for old in (folder, folder.with_name("checkpoints_refit")):
            shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).write_text(tomli_w.dumps(config.training))


def _with_defaults(made_by: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """With the defaults of options that are newer than the checkpoints."""
    try:
        return parse_config({**config.to_dict(), **made_by}).training
    except ConfigError:  # of other models, or with options that are no more
        return made_by


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
