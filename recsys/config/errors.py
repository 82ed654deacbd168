"""What is wrong with a config, in one line that names the key and the way out."""

from __future__ import annotations

import difflib
import typing
from typing import Any

from pydantic import BaseModel

from recsys.config.run_config import RunConfig


def explain(error: Any, where: str) -> str:
    """One pydantic error in one line that names the key and the way out."""
    model: Any = RunConfig
    path: list[str] = []
    for part in error["loc"]:
        arms = model if isinstance(model, dict) else {}
        if isinstance(part, str) and part in arms:  # the chosen arm of a union, not a key
            model = arms[part]
            continue
        path.append(str(part))
        model = _child(model, part)
    key = ".".join(path) or "the file"
    if error["type"] == "extra_forbidden":
        parent: Any = RunConfig
        for part in error["loc"][:-1]:
            arms = parent if isinstance(parent, dict) else {}
            parent = arms.get(part) or _child(parent, part) or parent
        known = sorted(getattr(parent, "model_fields", {}))
        close = difflib.get_close_matches(path[-1], known, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"{where}: unknown key {key}{hint}; known: {', '.join(known)}"
    if error["type"] == "union_tag_not_found" and isinstance(model, dict):
        tag = error["ctx"]["discriminator"].strip("'")
        return f"{where}: {key}.{tag} is missing; choose one of: {', '.join(sorted(model))}"
    got = "" if error["type"] == "missing" else f", got {error['input']!r}"
    return f"{where}: {key}: {error['msg']}{got}"


def _child(model: Any, part: Any) -> Any:
    """The annotation below a key: a model, a dict of union arms, or None."""
    field = getattr(model, "model_fields", {}).get(part)
    return None if field is None else _resolve(field.annotation)


def _resolve(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found: dict[str, Any] = {}
    for arm in typing.get_args(annotation):
        resolved = _resolve(arm)
        if isinstance(resolved, dict):
            found |= resolved
        elif resolved is not None:
            for tag in ("name", "source", "protocol"):
                if tag in resolved.model_fields:
                    found[resolved.model_fields[tag].default] = resolved
                    found |= {
                        v: resolved for v in typing.get_args(resolved.model_fields[tag].annotation)
                    }
    return found or None
