"""Packages that only some formats need."""

from __future__ import annotations

import importlib
from typing import Any

from feature_store.errors import ConfigError


def needed(module: str, what: str) -> Any:
    """A module that `what` needs. Raises ConfigError with what installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{what} needs {module}, which cannot be imported ({error}): "
            "pip install 'recsys[formats]'"
        ) from None
