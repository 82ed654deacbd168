"""What a model wants to know of a request, the same in training and in serving: one class a file.

A new one is its file and an entry in the dict below.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args, get_type_hints

from recsys.inputs.bag import Bag
from recsys.inputs.base import REQUESTS, Input
from recsys.inputs.compared import Compared
from recsys.inputs.history import History
from recsys.inputs.id import Id
from recsys.inputs.moment import Moment
from recsys.inputs.number import Number
from recsys.inputs.raw import Vocabularies
from recsys.inputs.requests import Requests
from recsys.inputs.times import Times

__all__ = [
    "INPUTS",
    "REQUESTS",
    "Bag",
    "Compared",
    "History",
    "Id",
    "Input",
    "Moment",
    "Number",
    "Requests",
    "Times",
    "Vocabularies",
    "from_json",
    "to_json",
]

INPUTS: dict[str, type[Input]] = {
    kind.__name__: kind for kind in (History, Times, Moment, Id, Bag, Number, Compared)
}
_CLASS = "input"


def to_json(value: Any) -> Any:
    """An input as JSON types, under its class's name; anything else as it is."""
    if not isinstance(value, Input):
        return value
    attributes = {field.name: to_json(getattr(value, field.name)) for field in fields(value)}  # type: ignore[arg-type]
    return {_CLASS: type(value).__name__, **attributes}


def from_json(value: Any) -> Any:
    """What `to_json` wrote. Raises KeyError for an unknown class, TypeError for attributes that it
    does not have or that are of another type."""
    if not isinstance(value, dict):
        return value
    kind = INPUTS[value[_CLASS]]
    attributes = {name: from_json(held) for name, held in value.items() if name != _CLASS}
    wanted = get_type_hints(kind)
    for name, held in attributes.items():
        kinds: tuple[Any, ...] = get_args(wanted.get(name)) or (wanted.get(name),)
        if all(isinstance(kind, type) for kind in kinds):  # str, int | None, another input
            fits = isinstance(held, kinds) and type(held) is not bool
        else:  # a choice
            fits = held in kinds
        if not fits:
            raise TypeError(f"{kind.__name__}.{name} is {held!r}")
    return kind(**attributes)
