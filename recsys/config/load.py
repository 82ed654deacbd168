"""A TOML file and overrides -> a RunConfig, or an error that names the key."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from feature_store.errors import ConfigError
from feature_store.trees import toml_tree
from recsys.config.checks import check
from recsys.config.errors import explain
from recsys.config.run_config import RunConfig
from recsys.config.tree import Place


def load_config(path: Path | str, overrides: list[str] | None = None) -> RunConfig:
    """Read a TOML file and apply overrides such as `trainer.epochs=3`.

    Raises:
        ConfigError: names the file or key at fault and what it allows.
    """
    return parse_config(read_toml(path), overrides, where=str(path))


def read_toml(path: Path | str) -> dict[str, Any]:
    """The tree of a TOML file. Raises ConfigError for what is none."""
    try:
        return toml_tree(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def parse_config(
    tree: dict[str, Any], overrides: list[str] | None = None, *, where: str = "config"
) -> RunConfig:
    """A RunConfig from a tree of plain values. Raises ConfigError as `load_config`."""
    tree = copy.deepcopy(tree)  # overrides are this run's, not the caller's
    for override in overrides or []:
        _override(tree, override)
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("; ".join(explain(e, tree, where) for e in error.errors())) from None
    check(config, where)
    return config


def _override(tree: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise ConfigError(f"{override!r} is not an override: write section.key=value")
    try:
        value = toml_tree(f"value = {text}")["value"]
    except ValueError:
        value = text
    *sections, last = key.strip().split(".")
    place = Place(RunConfig, tree)
    for section in sections:
        tree.setdefault(section, {})
        place = place.child(section)
        tree[section] = place.spelled_out
        tree = tree[section]
        if not isinstance(tree, dict):
            raise ConfigError(f"{override!r}: {section} is a value, not a section")
    tree[last] = value
    choice = place.choice
    if choice is not None and last == choice.key and value in choice.names:
        # who chooses another kind leaves the options behind that only the one before had
        for other in tree.keys() - choice.options(value).model_fields:
            del tree[other]
