"""Which keys a config has: in some tables they depend on what one of the keys chooses."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel

from recsys.options import Chosen, ChosenByName

Options = type[BaseModel]


@dataclass(frozen=True)
class Choice:
    """A table whose `key` chooses, by one of `names`, which options it has.

    `told` says whether the places of pydantic's errors hold the name that was chosen; without one
    it is the `default`.
    """

    key: str
    names: tuple[str, ...]
    options: Callable[[str], Options]
    told: bool
    default: str | None = None

    @classmethod
    def among(cls, arms: list[Options], default: str | None) -> Choice:
        """Of options that differ in the one value of a key."""
        for key in arms[0].model_fields:
            names = [_literals(arm, key) for arm in arms]
            if all(len(name) == 1 for name in names) and len({*names}) == len(arms):
                by_name = {name: arm for (name,), arm in zip(names, arms, strict=True)}
                return cls(key, tuple(by_name), by_name.__getitem__, True, default)
        raise TypeError(f"no key tells {arms} apart")


@dataclass(frozen=True)
class Place:
    """A place in a config: what is wanted there, as an annotation, and what stands there."""

    wanted: Any
    value: Any = None

    @property
    def choice(self) -> Choice | None:
        """What is to be chosen in a table, where something is."""
        annotations = list(_flat(self.wanted))
        for annotation in annotations:
            if isinstance(annotation, ChosenByName):
                names = tuple(annotation.registry)
                return Choice("name", names, annotation.options, told=False)
        arms = [arm for arm in annotations if _is_options(arm)]
        defaults = [mark.default for mark in annotations if isinstance(mark, Chosen)]
        return Choice.among(arms, *(defaults or [None])) if len(arms) > 1 else None

    @property
    def options(self) -> Options | None:
        """The options of a table, as what it chooses has them; None of what is no table."""
        choice = self.choice
        if choice is None:
            return next(filter(_is_options, _flat(self.wanted)), None)
        if isinstance(self.value, BaseModel):  # a default
            return type(self.value)
        name = self.value
        if isinstance(name, Mapping):
            name = name.get(choice.key, choice.default)
        return choice.options(name) if name in choice.names else None

    @property
    def chosen(self) -> tuple[str, str] | None:
        """The key of a table that chooses its options, and what it chooses."""
        choice, options = self.choice, self.options
        if choice is None or options is None:
            return None
        return choice.key, options.model_fields[choice.key].default

    @property
    def spelled_out(self) -> Any:
        """The value; a table where a name stands for one."""
        marks = (mark for mark in _flat(self.wanted) if isinstance(mark, Chosen))
        return next((mark.table(self.value) for mark in marks), self.value)

    @property
    def allowed(self) -> tuple[Any, ...]:
        """The values that may stand here, where they can be listed."""
        literals = [kind for kind in _flat(self.wanted) if typing.get_origin(kind) is Literal]
        return tuple(value for literal in literals for value in typing.get_args(literal))

    def child(self, key: str | int) -> Place:
        """The place below a key or a number."""
        options = self.options
        field = None if options is None else options.model_fields.get(str(key))
        try:
            value = self.value[key]
        except (KeyError, IndexError, TypeError):
            value = None if field is None else field.get_default(call_default_factory=True)
        if field is not None:
            return Place(Annotated[(field.annotation, None, *field.metadata)], value)
        return Place(_element(self.wanted), value)

    def paths(self) -> Iterator[tuple[str, ...]]:
        """Every key of the config from here, sections first."""
        names = list(self.options.model_fields) if self.options is not None else []
        if not names and isinstance(self.value, Mapping):
            names = [key for key in self.value if _element(self.wanted) is not None]
        for name in names:
            yield (name,)
            yield from ((name, *path) for path in self.child(name).paths())

    def below(self, loc: Iterable[str | int]) -> tuple[list[str], Place]:
        """The keys on the way to where one of pydantic's errors is, and the place."""
        place, keys, told = self, [], False
        for key in loc:
            if told:
                told = False
                continue
            place = place.child(key)
            keys.append(str(key))
            told = place.choice is not None and place.choice.told
        return keys, place


def _flat(annotation: Any) -> Iterator[Any]:
    """The types and marks in a union of annotated types."""
    if typing.get_origin(annotation) is Annotated:
        inner, *marks = typing.get_args(annotation)
        yield from marks
        yield from _flat(inner)
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for arm in typing.get_args(annotation):
            yield from _flat(arm)
    else:
        yield annotation


def _element(annotation: Any) -> Any:
    """What the elements of a list or the values of a table are to be."""
    for container in _flat(annotation):
        if typing.get_origin(container) is tuple:
            return typing.get_args(container)[0]
        if typing.get_origin(container) is dict:
            return typing.get_args(container)[1]
    return None


def _literals(options: Options, key: str) -> tuple[Any, ...]:
    field = options.model_fields.get(key)
    literal = field is not None and typing.get_origin(field.annotation) is Literal
    return typing.get_args(field.annotation) if field is not None and literal else ()


def _is_options(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
