"""Items of a catalogue -> their attributes: names and clean values, in order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from feature_store.errors import ConfigError
from feature_store.schema import Feature, Schema
from recsys.text.cleaning import clean, clean_bags, clean_column


class Attribute(NamedTuple):
    """An attribute of items: its name, in words, and its clean values [N], null where an item has
    none."""

    name: str
    values: pa.Array


def attributes_of(schema: Schema, named: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Which features of items are read: those `named`; or all texts, the title first, then ids and
    bags that are words, which numbers are not. The id of the item itself is none.

    Raises ConfigError for names that no item feature has, and for logs whose items have none.
    """
    features = {f.name: f for f in schema.of_side("item") if f.name != schema.item}
    if unknown := [name for name in named if name not in features]:
        raise ConfigError(
            f"text.attributes names {', '.join(unknown)}; "
            f"items of this log have: {', '.join(features) or 'none'}"
        )
    readable = named or tuple(
        feature.name
        for feature in sorted(features.values(), key=lambda f: _rank(f, schema))
        if feature.dtype == "string"
    )
    if not readable:
        raise ConfigError(
            "items of this log have no texts to be read: name features in text.attributes; "
            f"it has: {', '.join(features) or 'none'}"
        )
    return readable


def _rank(feature: Feature, schema: Schema) -> int:
    return 0 if feature.name == schema.title else 1 if feature.kind == "text" else 2


def item_attributes(table: pa.Table, names: tuple[str, ...]) -> list[Attribute]:
    """Attributes of items, one a row of a table that holds their columns as the catalogue has them.

    Texts and the values of bags, which are parted by commas, are cleaned as `clean` says; numbers
    are written out, and what is no number is no value. What is null or empty after that is absent.
    A name is read in words: `list_price` is `list price`.
    """
    return [Attribute(_words(name), _values(table.column(name))) for name in names]


def _words(name: str) -> str:
    return clean(name.replace("_", " "))


def _values(column: pa.ChunkedArray) -> pa.Array:
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if not _is_text(kind.value_type):
            column = column.cast(pa.large_list(pa.large_string()))
        return clean_bags(column)
    if pa.types.is_floating(kind):
        numbers = column.to_numpy()  # null is NaN
        texts = [np.format_float_positional(n, trim="-") for n in numbers]
        return pa.array(texts, pa.large_string(), mask=~np.isfinite(numbers))
    return clean_column(column if _is_text(kind) else column.cast(pa.large_string()))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
