"""Raw requests, of which every column is encoded once, whoever reads it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import DataError
from feature_store.ids import as_ids
from recsys.inputs.raw import Vocabularies, reading


@dataclass(frozen=True)
class EncodedLists:
    """Lists of raw ids [B], and the rows [E] of all their entries; 0 is unknown."""

    lists: pa.ListArray
    rows: np.ndarray

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """Which entries [E] are known, and the lists that those are of."""
        known = self.rows != 0
        return known, pc.list_parent_indices(self.lists).to_numpy()[known]

    @cached_property
    def counts(self) -> np.ndarray:
        """Known ids of each list [B]."""
        return np.bincount(self._known[1], minlength=len(self.lists))

    def padded(self, length: int | None, values: np.ndarray | None = None) -> np.ndarray:
        """Rows [B, L] of the known ids, the last `length`, padded with 0 behind; or, in their
        stead, `values` [E] of the entries."""
        known, parent = self._known
        kept_values, counts = (self.rows if values is None else values)[known], self.counts
        longest = int(counts.max(initial=0))
        width = max(1, longest if length is None else min(length, longest))
        from_end = np.repeat(np.cumsum(counts), counts) - np.arange(len(parent))  # 1 = the last
        kept = from_end <= width
        columns = np.minimum(counts, width)[parent[kept]] - from_end[kept]
        out = np.zeros((len(self.lists), width), dtype=np.int64)
        out[parent[kept], columns] = kept_values[kept]
        return out


class Requests:
    """B raw requests and the vocabularies by feature that they are read with."""

    def __init__(self, table: pa.Table, vocabularies: Vocabularies) -> None:
        self.table = table
        self._vocabularies = vocabularies
        self._encoded: dict[tuple[str, str], EncodedLists] = {}

    def __len__(self) -> int:
        return self.table.num_rows

    def __contains__(self, column: str) -> bool:
        return column in self.table.column_names

    def column(self, name: str) -> pa.Array:
        """A column [B]."""
        return self.table.column(name).combine_chunks()

    def ids(self, name: str, feature: str) -> np.ndarray:
        """Rows [B] of a column of ids; 0 is unknown. Raises ValueError for what is no id."""
        return self._encode(self.column(name), feature)

    def lists(self, name: str) -> pa.ListArray:
        """A column of lists; nulls are empty. Raises DataError when it holds none."""
        column = self.column(name)
        if pa.types.is_null(column.type):
            return pa.array([[]] * len(column), pa.list_(pa.int64()))
        if pa.types.is_fixed_size_list(column.type):
            column = column.cast(pa.list_(column.type.value_type))
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            raise DataError(f"column {name!r} must hold lists of ids, not {column.type}")
        return pc.fill_null(column, pa.scalar([], column.type)) if column.null_count else column

    def encoded(self, name: str, feature: str) -> EncodedLists:
        """A column of lists of ids; where it is absent, lists without any.

        Raises DataError when it holds anything else.
        """
        if (name, feature) not in self._encoded:
            with reading(name):
                nothing = pa.array([[]] * len(self), pa.list_(pa.int64()))
                lists = self.lists(name) if name in self else nothing
                rows = self._encode(pc.list_flatten(lists), feature)
            self._encoded[name, feature] = EncodedLists(lists, rows)
        return self._encoded[name, feature]

    def _encode(self, ids: pa.Array, feature: str) -> np.ndarray:
        vocabulary = self._vocabularies[feature]
        return vocabulary.encode(as_ids(ids, vocabulary.type))
