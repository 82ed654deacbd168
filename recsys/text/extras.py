"""Packages that only models of texts need."""

from __future__ import annotations

import importlib
from typing import Any

from feature_store.errors import ConfigError


def needed(module: str) -> Any:
    """The module `tokenizers` or `transformers`. Raises ConfigError with what installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"models that read texts need {module}, which cannot be imported ({error}): "
            "pip install 'recsys[text]'"
        ) from None
