"""JSON and TOML of others: a tree, or a ValueError, also where it is nested without end."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

_ENDLESS = "it is nested too deep to be read"
_DEEPEST = 100
_BETWEEN_KEYS = re.compile(r"[=\[\]{},\n]")


def json_tree(text: str | bytes) -> Any:
    """What a JSON text says. Raises ValueError for what is none."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(_ENDLESS) from None


def toml_tree(text: str) -> dict[str, Any]:
    """What a TOML text says. Raises ValueError for what is none.

    So is a key of more than a hundred names: the standard library takes memory of their square.
    """
    if any(part.count(".") > _DEEPEST for part in _BETWEEN_KEYS.split(text)):
        raise ValueError(_ENDLESS)
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError(_ENDLESS) from None
