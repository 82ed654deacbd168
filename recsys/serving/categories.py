"""Categories of a bundle's items, from what its catalogue says of them."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from feature_store.errors import DataError
from recsys.serving.bundle import Bundle


def categories_of(bundle: Bundle, column: str) -> Tensor:
    """Of the n items: ids [n], 0 where the catalogue has none; of a bag, multi-hot [n, C].

    Raises DataError for a column that the catalogue lacks, or that holds no categories.
    """
    schema, path = bundle.schema, bundle.folder / "catalogue.parquet"
    if not path.exists():
        raise DataError("this bundle has no catalogue of items, so no categories to diversify by")
    there = pq.read_schema(path).names
    features = {
        feature.name: feature
        for feature in schema.of_side("item")
        if feature.kind in ("id", "bag") and feature.name in there and feature.name != schema.item
    }
    if column not in features:
        known = ", ".join(features) or "none"
        raise DataError(f"no column of categories is called {column!r}; the catalogue has: {known}")
    table = pq.read_table(path, columns=[schema.item, column], partitioning=None)
    ids = table.column(schema.item).combine_chunks()
    values = table.column(column).combine_chunks()
    rows = pc.index_in(bundle.item_ids.cast(ids.type), value_set=ids)
    values = values.take(rows)  # null where the catalogue does not know the item
    if features[column].kind == "id":
        codes = values.dictionary_encode().indices
        return torch.from_numpy(pc.fill_null(codes, -1).to_numpy(False).astype("int64")) + 1
    parents, codes = pc.list_parent_indices(values), pc.list_flatten(values).dictionary_encode()
    hot = torch.zeros(len(values), len(codes.dictionary), dtype=torch.bool)
    known_ones = codes.indices.is_valid()
    hot[_rows(parents.filter(known_ones)), _rows(codes.indices.filter(known_ones))] = True
    return hot


def _rows(values: pa.Array) -> Tensor:
    return torch.from_numpy(values.to_numpy(False).astype("int64"))
