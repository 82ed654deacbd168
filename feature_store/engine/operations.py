"""What an engine does with tables: the few operations in which engines differ."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from feature_store.storage import Place

if TYPE_CHECKING:  # loaded with the first engine: options are read without one
    import ibis.expr.types as ir

T = TypeVar("T")


class Operations(ABC):
    """A connection and the tables made through it. Errors are the engine's own, of which `mendable`
    says what a user can do."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Name and version."""

    @abstractmethod
    def scan(self, files: Sequence[Place]) -> ir.Table:
        """The rows of Parquet files of one schema."""

    @abstractmethod
    def table(self, rows: pa.Table) -> ir.Table:
        """The rows of a table in memory."""

    @abstractmethod
    def cache(self, rows: ir.Table) -> ir.Table:
        """The same rows, computed once."""

    @abstractmethod
    def collect(self, rows: ir.Table) -> pa.Table:
        """The rows in memory."""

    @abstractmethod
    def stream(self, rows: ir.Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """The rows batch by batch, in their order."""

    @abstractmethod
    def parts(
        self,
        rows: ir.Table,
        keys: Sequence[str],
        columns: Sequence[str],
        work: Callable[[Iterator[pa.RecordBatch], str], T],
        together: bool,
    ) -> list[T]:
        """What `work` makes of the `columns` of each part of the rows, sorted by the `keys`, where
        they lie; rows of which the first key is the same lie `together`."""

    @abstractmethod
    def codes_of_strings(self, ids: ir.Column) -> ir.IntegerColumn:
        """`feature_store.hashing.codes_of` strings; whatever comes for nulls."""

    @abstractmethod
    def mendable(self, error: Exception) -> str | None:
        """What a user can mend about an error, in one line."""

    @abstractmethod
    def close(self) -> None:
        """Forget all tables and remove what was spilled."""
