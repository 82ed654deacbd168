"""What is wrong with a config, in one line that names the key and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from recsys.config.run_config import RunConfig
from recsys.config.tree import Place


def explain(error: Any, tree: Mapping[str, Any], where: str) -> str:
    """One pydantic error in one line that names the key and the way out."""
    *before, last = error["loc"] or ("the file",)
    root = Place(RunConfig, tree)
    keys, place = root.below(error["loc"])
    key = ".".join(keys) or "the file"
    if error["type"] == "extra_forbidden":
        options = root.below(before)[1].options
        known = sorted(options.model_fields) if options else []
        close = difflib.get_close_matches(str(last), known, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"{where}: unknown key {key}{hint}; known: {', '.join(known)}"
    choice = place.choice
    names = ", ".join(sorted(choice.names)) if choice is not None else ""
    if choice is not None and error["type"] == "union_tag_not_found":
        return f"{where}: {key}.{choice.key} is missing; choose one of: {names}"
    if choice is not None and error["type"] == "union_tag_invalid":
        name = error["ctx"]["tag"]
        close = difflib.get_close_matches(name, choice.names, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"{where}: {key}.{choice.key}: {name!r} is not known{hint}; choose one of: {names}"
    got = "" if error["type"] == "missing" else f", got {error['input']!r}"
    return f"{where}: {key}: {error['msg']}{got}"
