"""Options of models, how `name` chooses whose they are, and options of one kind of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from operator import or_
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import CoreSchema, InitErrorDetails, core_schema

from feature_store.options import Options


class ModelConfig(Options):
    """A retriever's or ranker's own options; `name` chooses it.

    `search_space` is what `recsys tune` tries by default, by option: low and high, or choices.
    """

    search_space: ClassVar[dict[str, dict[str, Any]]] = {}

    name: str


class Kind(Options):
    """One of several kinds of a thing, chosen by `name`, with the options that it alone has."""

    name: str


@dataclass(frozen=True)
class Chosen:
    """Annotates a union of options that `key` tells apart: its value alone will do for options that
    are left to their defaults, and a table without it means the `default`, if there is one."""

    key: str = "name"
    default: str | None = None

    def table(self, value: Any) -> Any:
        """The table of options that is meant."""
        if isinstance(value, str):
            return {self.key: value}
        if isinstance(value, Mapping) and self.default is not None:
            return {self.key: self.default, **value}
        return value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.table, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        table = handler(schema)
        names = list(table["discriminator"]["mapping"])
        return {"anyOf": [table, {"type": "string", "enum": names}]}


def changed(options: BaseModel, *names: str) -> list[str]:
    """Which of these options have another value than their default."""
    fields = type(options).model_fields
    return [name for name in names if getattr(options, name) != fields[name].default]


def import_class(path: str) -> Any:
    """The class at a dotted path, as registries of models hold them."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


@dataclass(frozen=True, eq=False)
class ChosenByName:
    """Annotates a field with the options of a model that `name` chooses from a registry.

    A registry maps names to dotted paths of classes, each of which has its options as `Config`.
    Only the module of the class that is named is imported; the JSON schema, which shows all of
    them as a union discriminated by `name`, imports every one.
    """

    registry: Mapping[str, str]

    def options(self, name: str) -> type[ModelConfig]:
        """The options of the model of that name. Raises KeyError for an unknown one."""
        return import_class(self.registry[name]).Config  # type: ignore[no-any-return]

    def validate(self, value: Any) -> ModelConfig:
        """From a table with the key `name`. Raises pydantic's ValidationError."""
        if isinstance(value, ModelConfig):
            return value
        if not isinstance(value, Mapping):
            raise _error("dict_type", value)
        if "name" not in value:
            raise _error("union_tag_not_found", value, discriminator="'name'")
        name = value["name"]
        if not isinstance(name, str) or name not in self.registry:
            expected = ", ".join(map(repr, self.registry))
            raise _error(
                "union_tag_invalid",
                value,
                discriminator="'name'",
                tag=str(name),
                expected_tags=expected,
            )
        return self.options(name).model_validate(value)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda options, info: options.model_dump(
                    mode=info.mode, exclude_none=info.exclude_none
                ),
                info_arg=True,
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        arms = reduce(or_, map(self.options, self.registry))
        union = arms
        if len(self.registry) > 1:
            union = Annotated[arms, Field(discriminator="name")]  # type: ignore[assignment]
        return handler(TypeAdapter(union).core_schema)


def _error(kind: str, value: Any, **context: Any) -> ValidationError:
    details = InitErrorDetails(type=kind, loc=(), input=value, ctx=context)
    return ValidationError.from_exception_data("options", [details])
