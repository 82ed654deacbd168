"""What people read about the items of a part, by their places."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from feature_store.errors import DataError
from feature_store.parquet import read_parquet
from feature_store.schema import Schema
from feature_store.vocabulary import Vocabulary


class ItemCatalogue:
    """Columns of a catalogue's file in the order of n items; each is read when first asked for.

    `path` is None where there is no catalogue.
    """

    def __init__(self, path: Path | None, schema: Schema, item_ids: pa.Array) -> None:
        self._path = path
        self._schema = schema
        self._item_ids = item_ids
        self._columns = () if path is None else tuple(pq.read_schema(path).names)
        if path is not None and schema.item not in self._columns:
            raise DataError(f"{path} has no column {schema.item!r} of items: export again")
        self._values = cache(self._aligned)

    @property
    def has_titles(self) -> bool:
        """Whether items have titles."""
        return self._schema.title in self._columns

    def titles(self, places: Tensor) -> pa.Array:
        """Titles of the items at `places` [m]; empty where there is none."""
        assert self._schema.title is not None
        titles = self._values(self._schema.title).take(pa.array(places.numpy()))
        return titles.fill_null("")

    def categories(self, column: str, places: Tensor) -> Tensor:
        """Of the items at `places` [m]: ids [m], 0 where the catalogue has none; of a bag,
        multi-hot [m, C], where C is the number of categories that these items have.

        Raises DataError for a column that the catalogue lacks, or that holds no categories.
        """
        self.check_category(column)
        values = self._values(column).take(pa.array(places.numpy()))
        if not pa.types.is_list(values.type):
            codes = values.dictionary_encode().indices
            return torch.from_numpy(pc.fill_null(codes, -1).to_numpy(False).astype("int64")) + 1
        parents, codes = pc.list_parent_indices(values), pc.list_flatten(values).dictionary_encode()
        hot = torch.zeros(len(values), len(codes.dictionary), dtype=torch.bool)
        valid = codes.indices.is_valid()
        hot[_rows(parents.filter(valid)), _rows(codes.indices.filter(valid))] = True
        return hot

    def check_category(self, column: str) -> None:
        """Raises DataError as `categories` does."""
        if self._path is None:
            raise DataError("this bundle has no catalogue of items, so no categories to choose by")
        known = [
            feature.name
            for feature in self._schema.of_side("item")
            if feature.kind in ("id", "bag")
            and feature.name in self._columns
            and feature.name != self._schema.item
        ]
        if column not in known:
            raise DataError(
                f"no column of categories is called {column!r}; the catalogue has: "
                f"{', '.join(known) or 'none'}"
            )

    def _aligned(self, column: str) -> pa.Array:
        """A column [n], null where the catalogue does not know the item."""
        assert self._path is not None
        names = [self._schema.item, column]
        table = read_parquet(self._path, names)
        ids, values = (table.column(name).combine_chunks() for name in names)
        rows = Vocabulary(ids).encode(self._item_ids) - 1
        return values.take(pa.array(rows, mask=rows < 0))


def _rows(values: pa.Array) -> Tensor:
    return torch.from_numpy(values.to_numpy(False).astype("int64"))
