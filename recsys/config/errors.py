"""What is wrong with a config, in one line that names the key and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from recsys.config.run_config import RunConfig
from recsys.config.tree import Choice, Place

_LONGEST = 60  # characters of a value that are shown
_A_MOMENT = "must be a moment such as 2024-01-31 or 2024-01-31T12:00:00Z"
_A_TABLE, _A_WHOLE, _A_NUMBER = "must be a table", "must be a whole number", "must be a number"
_TRUTH, _A_TEXT, _A_LIST = "must be true or false", "must be a text", "must be a list"

# by pydantic's kind of error, whose own words speak of its machinery
_WORDS = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be above {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt}",
    "finite_number": "must be a finite number",
    "string_pattern_mismatch": "must match {pattern}",
    "bool_parsing": _TRUTH,
    "bool_type": _TRUTH,
    "dict_type": _A_TABLE,
    "float_parsing": _A_NUMBER,
    "float_type": _A_NUMBER,
    "int_from_float": _A_WHOLE,
    "int_parsing": _A_WHOLE,
    "int_parsing_size": _A_WHOLE,
    "int_type": _A_WHOLE,
    "invalid_key": "has a key that is no text",
    "list_type": _A_LIST,
    "model_attributes_type": _A_TABLE,
    "model_type": _A_TABLE,
    "path_type": "must be a path",
    "string_type": _A_TEXT,
    "string_unicode": _A_TEXT,
    "tuple_type": _A_LIST,
}


def explain(error: Mapping[str, Any], tree: Mapping[str, Any], where: str) -> str:
    """One pydantic error in one line that names the key and the way out.

    `tree` is the config as it was given, `where` its file.
    """
    return f"{where}: {_explain(error, Place(RunConfig, tree))}"


def _explain(error: Mapping[str, Any], root: Place) -> str:
    keys, place = root.below(error["loc"])
    key, kind, value = ".".join(keys), error["type"], error["input"]
    choice = place.choice
    if kind == "extra_forbidden":
        return _unknown(keys, root, root.below(error["loc"][:-1])[1])
    if kind == "missing":
        chosen = root.below(error["loc"][:-1])[1].chosen
        needed = f": {chosen[0]} = {chosen[1]!r} needs it" if chosen else ""
        return f"{key} is missing{needed}"
    if kind in ("union_tag_not_found", "dict_type") and choice is not None:
        if isinstance(value, Mapping):
            close = difflib.get_close_matches(choice.key, map(str, value), 1)
            hint = f" (is it {close[0]}?)" if close else ""
            return f"{key}.{choice.key} is missing{hint}; {_choose(choice.names)}"
        return f"{key}: {_A_TABLE} with {choice.key}{_got(value)}; {_choose(choice.names)}"
    if kind == "union_tag_invalid" and choice is not None:
        chosen = value.get(choice.key) if isinstance(value, Mapping) else value
        return _not_known(f"{key}.{choice.key}", chosen, choice.names)
    if kind == "literal_error":
        return _not_known(key, value, place.allowed)
    if kind == "value_error":  # ours
        got = "" if isinstance(value, Mapping) else _got(value)
        return f"{key or 'the file'}: {error['ctx']['error']}{got}"
    words = _A_MOMENT if kind.startswith(("date_", "datetime_")) else _WORDS.get(kind)
    words = "cannot be this" if words is None else words.format(**error.get("ctx", {}))
    return f"{key or 'the file'}: {words}{_got(value)}"


def _unknown(keys: list[str], root: Place, table: Place) -> str:
    """Of a key that nobody knows: what it may have been meant for, and what there is."""
    names = sorted(table.options.model_fields) if table.options is not None else []
    hint = ""
    if table.choice is not None and (others := _choices_with(keys[-1], table.choice)):
        section = ".".join([*keys[:-1], table.choice.key])
        hint = f": it goes with {section} = {' or '.join(map(repr, others))}"
    elif meant := _meant(keys, names, root):
        hint = f": did you mean {' or '.join(meant)}?"
    listed = f"{' ' if hint.endswith('?') else '; '}known: {', '.join(names)}"
    return f"unknown key {'.'.join(keys)}{hint}{listed}"


def _meant(keys: list[str], names: list[str], root: Place) -> list[str]:
    """Keys of the config that an unknown one may be: of its name, or misspelled in its table, or
    elsewhere; those with the most sections in common."""
    *table, name = keys
    if close := difflib.get_close_matches(name, names, 1):
        beside = [".".join([*table, close[0]])]
    else:
        beside = []
    everywhere = list(root.paths())
    named = [path for path in everywhere if path[-1] == name]
    if not named and not beside:
        (similar,) = difflib.get_close_matches(name, {p[-1] for p in everywhere}, 1, 0.8) or ("",)
        named = [path for path in everywhere if path[-1] == similar]
    if not named:
        return beside
    nearest = max(_common(path, keys) for path in named)
    return [".".join(path) for path in named if _common(path, keys) == nearest][:3]


def _common(path: tuple[str, ...], keys: list[str]) -> int:
    """How many sections two keys begin with alike."""
    count = 0
    for section, wanted in zip(path, keys, strict=False):
        if section != wanted:
            break
        count += 1
    return count


def _choices_with(name: str, choice: Choice) -> list[str]:
    """What would have to be chosen for an option to be there, where that is cheap to say."""
    if not choice.told:
        return []
    return [each for each in choice.names if name in choice.options(each).model_fields]


def _not_known(key: str, value: Any, names: Iterable[Any]) -> str:
    names = list(map(str, names))
    close = difflib.get_close_matches(value, names, 1) if isinstance(value, str) else []
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{key}: {_shown(value)} is not known{hint}; {_choose(names)}"


def _choose(names: Iterable[str]) -> str:
    return f"choose one of: {', '.join(sorted(names))}"


def _got(value: Any) -> str:
    return f", got {_shown(value)}"


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
