"""The items of a generator as a table: ids, vectors and what people read about them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from feature_store.errors import DataError
from feature_store.parquet import read_parquet
from feature_store.vocabulary import Vocabulary
from recsys.formats.source import GeneratorSource, Source

ID, VECTOR, ROW = "id", "vector", "row"
METRIC = "inner_product"


def generator_of(source: Source, what: str) -> GeneratorSource:
    """The source as a generator. Raises DataError for a ranker, which has no items of its own."""
    if not isinstance(source, GeneratorSource):
        raise DataError(
            f"the {source.record.noun} {source.name} of {source.bundle.folder} has no items, of "
            f"which {what} is made: name a generator with --part"
        )
    return source


def items_table(source: GeneratorSource) -> pa.Table:
    """Columns `id`; `vector` [D] of float32, or, where the program scores all item rows itself,
    `row`, the place of the item's score; and those of the catalogue.

    A column of the catalogue that is called like one of the first gets an underscore behind.
    """
    items = source.generator.items
    columns: dict[str, pa.Array] = {ID: source.generator.item_ids}
    if items.dim() == 1:
        columns[ROW] = pa.array(items.numpy())
    else:
        numbers = pa.array(items.numpy().ravel(), pa.float32())
        columns[VECTOR] = pa.FixedSizeListArray.from_arrays(numbers, items.shape[1])
    for name, values in _of_catalogue(source).items():
        while name in columns:
            name += "_"
        columns[name] = values
    return pa.table(columns)


def told_of(source: GeneratorSource) -> dict[str, Any]:
    """What must stand beside vectors: where they come from, and what may be compared with them."""
    record = source.record
    return {
        "space": record.space,
        "width": record.width,
        "metric": METRIC,
        "merge": record.merge,
        "items": record.items,
        "candidates": record.candidates,
        "part": source.name,
        "model": source.model,
        "run": record.about.run,
    }


def _of_catalogue(source: GeneratorSource) -> dict[str, pa.Array]:
    """Columns of the catalogue besides the ids; null where it does not know an item."""
    path, item = source.bundle.catalogue, source.bundle.schema.item
    if path is None:
        return {}
    table = read_parquet(path).combine_chunks()
    known = Vocabulary(table.column(item).combine_chunks())
    places = known.encode(source.generator.item_ids) - 1
    rows = pa.array(places, mask=np.asarray(places < 0))
    return {
        name: table.column(name).combine_chunks().take(rows)
        for name in table.column_names
        if name != item
    }
