"""Catalogue: what is known of items and users besides their events."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.conform import conform
from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.parquet import read_parquet
from feature_store.schema import Schema
from feature_store.storage import Place, digest_of, on_disk

CatalogueSide = Literal["user", "item"]


class Catalogue:
    """`items.parquet` and `users.parquet` beside the events, one row an id.

    A side without a file is empty: ids alone then carry the log.
    """

    def __init__(self, folder: Place, schema: Schema) -> None:
        self.folder = folder
        self.schema = schema

    def path(self, side: CatalogueSide) -> Place:
        """The Parquet file of one side."""
        return self.folder / f"{side}s.parquet"

    def write(self, side: CatalogueSide, table: pa.Table) -> None:
        """Replace one side. Raises DataError for values that do not fit and for repeated ids."""
        checked = conform(table, self.schema.side_schema(side))
        if checked.problems:
            p = checked.problems[0]
            raise DataError(f"{side}s, row {p.row}, column {p.column!r}: {p.value!r} {p.reason}")
        key = getattr(self.schema, side)
        counts = checked.table.column(key).value_counts()
        repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        if len(repeated):
            raise DataError(f"{side}s: {key} {repeated[0].as_py()!r} occurs more than once")
        write_parquet(checked.table, on_disk(self.path(side)))

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits over what is known of items and users."""
        digest = hashlib.sha256()
        for side in get_args(CatalogueSide):
            if (path := self.path(side)).exists():
                digest.update(side.encode() + bytes.fromhex(digest_of(path)))
        return digest.hexdigest()[:16]

    def read(self, side: CatalogueSide) -> pa.Table:
        """All rows of one side; an empty table when there is no file."""
        path = self.path(side)
        if path.exists():
            return read_parquet(path)
        return self.schema.side_schema(side).empty_table()
