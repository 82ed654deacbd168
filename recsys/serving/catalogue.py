"""What people read about the items of a part, by their places."""

from __future__ import annotations

from functools import cache, cached_property
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
from recsys.serving.expressions import written

_SHOWN = 60  # signs of a name that is not known


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

    @property
    def columns(self) -> tuple[str, ...]:
        """What it says of items besides their ids and titles."""
        known = (self._schema.item, self._schema.title)
        return tuple(name for name in self._columns if name not in known)

    def titles(self, places: Tensor) -> pa.Array:
        """Titles of the items at `places` [m]; empty where there is none."""
        assert self._schema.title is not None
        titles = self._values(self._schema.title).take(pa.array(places.numpy()))
        return titles.fill_null("")

    def column(self, name: str) -> pa.Array:
        """A column [n], null where the catalogue does not know the item, or not that of it.

        Raises DataError for one that the catalogue lacks, naming those that it has.
        """
        if self._path is None:
            raise DataError("this bundle has no catalogue of items: there is nothing to filter by")
        if name not in self._columns:
            known = ", ".join(map(self._described, self._columns))
            raise DataError(
                f"the catalogue has no column {name[:_SHOWN]!r}; it has: {known}; such as: "
                f"{self.example(self._columns[-1])}"
            )
        return self._values(name)

    def example(self, name: str) -> str:
        """A filter by a column that is there."""
        values = self._values(name)
        several = pa.types.is_list(values.type)
        known = (pc.list_flatten(values) if several else values).drop_null()
        value = repr(known[0].as_py()) if len(known) else "..."
        if len(value) > _SHOWN:
            value = '"..."'
        return f"{value} in {written(name)}" if several else f"{written(name)} == {value}"

    def _described(self, name: str) -> str:
        assert self._path is not None
        kind = pq.read_schema(self._path).field(name).type
        several = pa.types.is_list(kind)
        held = "texts" if pa.types.is_string(kind.value_type if several else kind) else "numbers"
        return f"{name} ({'several ' if several else ''}{held})"

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
        values = read_parquet(self._path, [column]).column(column)
        return values.combine_chunks().take(self._places)

    @cached_property
    def _places(self) -> pa.Array:
        """The rows [n] of the items in the file, null where it lacks one."""
        assert self._path is not None
        ids = read_parquet(self._path, [self._schema.item]).column(0).combine_chunks()
        rows = Vocabulary(ids).encode(self._item_ids) - 1
        return pa.array(rows, mask=rows < 0)


def _rows(values: pa.Array) -> Tensor:
    return torch.from_numpy(values.to_numpy(False).astype("int64"))
