"""Columns of the catalogue that figures are sliced by, or that say how different items are."""

from __future__ import annotations

from feature_store.errors import ConfigError
from feature_store.schema import Feature, Schema
from recsys.evaluation.options import EvaluationConfig


def check_columns(options: EvaluationConfig, schema: Schema) -> None:
    """Raises ConfigError for an option that names no such column of the log's catalogue."""
    for name in options.slice_columns:
        slicing_feature(schema, name)
    if options.category is not None:
        category_feature(schema, options.category)


def slicing_feature(schema: Schema, name: str) -> Feature:
    """The column that `evaluation.slice_columns` names: an id of users, or an id or bag of items,
    but for the users and items themselves. Raises ConfigError."""
    allowed = [
        *(f for f in schema.of_side("user") if f.kind == "id" and f.name != schema.user),
        *(f for f in schema.of_side("item") if f.embedded and f.name != schema.item),
    ]
    return _among(allowed, name, "slice_columns", "ids of users and ids and bags of items")


def category_feature(schema: Schema, name: str) -> Feature:
    """The column that `evaluation.category` names: an id or bag of items. Raises ConfigError."""
    allowed = [feature for feature in schema.of_side("item") if feature.embedded]
    return _among(allowed, name, "category", "ids and bags of items")


def _among(allowed: list[Feature], name: str, option: str, kinds: str) -> Feature:
    for feature in allowed:
        if feature.name == name:
            return feature
    names = ", ".join(feature.name for feature in allowed) or "none"
    raise ConfigError(
        f"evaluation.{option}: {name!r} is none of the catalogue's {kinds}; it has: {names}"
    )
