"""One thing to do on a GPU, by the name of its function, so that another process can do it."""

from __future__ import annotations

import importlib
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Outcome = dict[str, Any]
"""What a step measured; under `failed` why it did not, with the last lines of the traceback."""

FAILED, TRACEBACK = "failed", "traceback"
_LAST_LINES = 12


@dataclass(frozen=True)
class Settings:
    """What all steps share: the device, whether sizes are tiny, and the folder they work in."""

    device: str
    tiny: bool
    folder: Path


@dataclass(frozen=True)
class Step:
    """`function` is `module:name`, called with the settings and `options`; `seconds` at most."""

    name: str
    function: str
    options: dict[str, Any] = field(default_factory=dict)
    seconds: float = 60.0

    def do(self, settings: Settings) -> Outcome:
        """What the function returns, or why it failed. Never raises an Exception."""
        try:
            module, _, name = self.function.partition(":")
            function = getattr(importlib.import_module(module), name)
            return function(settings, **self.options)  # type: ignore[no-any-return]
        except Exception as error:
            lines = traceback.format_exc().splitlines()[-_LAST_LINES:]
            return {FAILED: f"{type(error).__name__}: {error}"[:500], TRACEBACK: lines}
