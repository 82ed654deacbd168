"""A config as TOML that says of every option what it is, whether it is set or not."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator

from pydantic import BaseModel

from recsys.config.inline import inline
from recsys.config.run_config import RunConfig

_WIDTH = 96


def annotated(config: RunConfig) -> str:
    """The resolved tree as TOML, which loads to the same config.

    Above each option stands what it means; one that is not set is a comment without a value.
    """
    return "\n".join(_table(config, "")) + "\n"


def _table(options: BaseModel, path: str) -> Iterator[str]:
    """The lines of a table: its own options first, then the tables below it."""
    values = options.model_dump(mode="json", exclude_none=True)
    fields = type(options).model_fields
    tables = [name for name in fields if isinstance(getattr(options, name), BaseModel)]
    for name, field in fields.items():
        if name not in tables:
            yield from _comment(field.description)
            yield f"{name} = {inline(values[name])}" if name in values else f"# {name} ="
    for name in tables:
        yield ""
        table = getattr(options, name)
        paragraph, *_ = inspect.cleandoc(type(table).__doc__ or "").split("\n\n")
        yield from _comment(fields[name].description or paragraph)
        yield f"[{path}{name}]"
        yield from _table(table, f"{path}{name}.")


def _comment(text: str | None) -> list[str]:
    return textwrap.wrap(text or "", _WIDTH, initial_indent="# ", subsequent_indent="# ")
