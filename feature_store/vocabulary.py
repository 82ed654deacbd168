"""Vocabulary: raw id <-> row. Row 0 is every id that was not seen."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather

from feature_store.errors import DataError

UNKNOWN = 0


class Vocabulary:
    """Raw ids in ascending order; the id at place i has row i + 1."""

    def __init__(self, values: pa.Array) -> None:
        self.values = values

    @classmethod
    def fit(cls, *columns: pa.Array | pa.ChunkedArray) -> Vocabulary:
        """The distinct non-null values of the columns (lists are flattened), sorted."""
        parts = []
        for column in columns:
            if pa.types.is_list(column.type):
                column = pc.list_flatten(column)
            parts.append(pc.unique(column))
        distinct = pc.unique(pa.chunked_array(parts)).drop_null()
        return cls(distinct.take(pc.sort_indices(distinct)))

    def __len__(self) -> int:
        """Rows of a table for this vocabulary: the ids and the unknown row."""
        return len(self.values) + 1

    def encode(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Rows [n] int64 of `ids`; 0 for null and for ids that were not fitted."""
        if isinstance(ids, pa.ChunkedArray):
            ids = ids.combine_chunks()
        if ids.type != self.values.type:
            ids = ids.cast(self.values.type, safe=False)
        rows = pc.index_in(ids, value_set=self.values)
        return np.asarray(pc.fill_null(pc.add(rows.cast(pa.int64()), 1), UNKNOWN))

    def decode(self, rows: np.ndarray) -> pa.Array:
        """Raw ids [n] of `rows`; null for row 0."""
        places = np.asarray(rows, dtype=np.int64) - 1
        return self.values.take(pa.array(places, mask=places < 0))

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits over the ids and their order."""
        digest = hashlib.sha256(str(self.values.type).encode())
        for value in self.values.to_pylist():
            digest.update(repr(value).encode() + b"\0")
        return digest.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write the ids as an Arrow file."""
        feather.write_feather(pa.table({"id": self.values}), str(path), compression="zstd")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote. Raises DataError when it is absent or torn."""
        try:
            table = feather.read_table(str(path))
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"vocabulary {path} cannot be read: {error}") from None
        column = table.column("id").combine_chunks()
        return cls(column if isinstance(column, pa.Array) else pa.array([], column.type))
