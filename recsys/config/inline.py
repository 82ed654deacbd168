"""Plain values as TOML writes them behind a key."""

from __future__ import annotations

from typing import Any

import tomli_w


def inline(value: Any) -> str:
    """A value as it stands behind its key, with tables in braces."""
    if isinstance(value, dict):
        entries = [f"{_key(name)} = {inline(entry)}" for name, entry in value.items()]
        return f"{{ {', '.join(entries)} }}" if entries else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(inline, value))}]"
    return tomli_w.dumps({"v": value}).partition(" = ")[2].rstrip("\n")


def _key(name: str) -> str:
    """A key, in quotes where it needs them."""
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")
