"""Engine: the tables of one piece of work, whichever engine computes them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa

from feature_store.engine.config import EngineConfig
from feature_store.engine.operations import Operations
from feature_store.errors import DataError, RecsysError
from feature_store.hashing import CODE_OF_ZERO
from feature_store.storage import Place

if TYPE_CHECKING:  # loaded with the first engine: options are read without one
    import ibis.expr.types as ir

STREAM_ROWS = 1 << 16
_KEY = "_key_of_order_"
T = TypeVar("T")


class Engine:
    """A connection and the tables made through it; `close`, or leaving a `with`, removes all.

    An expression is computed when it is cached, collected, streamed or worked on in parts, and all
    raise DataError where memory and disk do not suffice. What is collected or streamed comes here;
    the work on parts goes to where the rows are.
    """

    def __init__(self, config: EngineConfig | None = None) -> None:
        self.config = config or EngineConfig()
        self._on = _opened(self.config)
        self._finalizer = weakref.finalize(self, self._on.close)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    @property
    def description(self) -> str:
        """What computes, with its version."""
        import ibis

        return f"ibis {ibis.__version__} on {self._on.version}"

    def scan(self, files: Sequence[Place]) -> ir.Table:
        """The rows of Parquet files of one schema."""
        with self._mendable():
            return self._on.scan(files)

    def table(self, rows: pa.Table) -> ir.Table:
        """The rows of a table in memory, copied into the engine's own."""
        with self._mendable():
            return self._on.table(rows)

    def cache(self, rows: ir.Table) -> ir.Table:
        """The same rows, computed once."""
        with self._mendable():
            return self._on.cache(rows)

    def collect(self, rows: ir.Table) -> pa.Table:
        """The rows in memory: for results that are known to be small."""
        with self._mendable():
            return self._on.collect(rows)

    def stream(self, rows: ir.Table, batch_rows: int = STREAM_ROWS) -> Iterator[pa.RecordBatch]:
        """The rows batch by batch, in their order; at least one batch, which may be empty."""
        with self._mendable():
            empty = True
            for batch in self._on.stream(rows, batch_rows):
                empty = False
                yield batch
            if empty:
                yield pa.RecordBatch.from_pylist([], rows.schema().to_pyarrow())

    def parts(
        self,
        rows: ir.Table,
        order: Sequence[ir.Column],
        work: Callable[[Iterator[pa.RecordBatch], str], T],
        *,
        together: bool = False,
        drop: Sequence[str] = (),
        here: bool = False,
    ) -> list[T]:
        """What `work` makes of each part of the rows in ascending order: it is given the batches of
        the part, of which there is at least one, and a name that no other part has.

        Parts follow each other in the order; where rows belong `together` of which the first key is
        the same, they are in one part. Columns to `drop` are those that only the order needs. On a
        cluster `work` runs where the rows are, and more than once where a machine fails: what it
        gives back is what JSON can say, where a tuple is a list. What cannot travel is done `here`,
        in one part.
        """
        keys = {f"{_KEY}{place}": key for place, key in enumerate(order)}
        keyed = rows.mutate(**keys)
        columns = [name for name in rows.columns if name not in drop]
        with self._mendable():
            if here:
                ordered = keyed.order_by(list(keys)).select(columns)
                return [work(self.stream(ordered), "00000")]
            return self._on.parts(keyed, list(keys), columns, work, together)

    def codes(self, ids: ir.Column) -> ir.IntegerColumn:
        """The 64-bit codes of a column of ids, as `feature_store.hashing.codes_of`; strings go
        through it in batches, so that nothing is kept of them."""
        if ids.type().is_integer():
            key = ids.cast("int64")
            return (key == 0).ifelse(CODE_OF_ZERO, key).fill_null(0)
        return self._on.codes_of_strings(ids).fill_null(0)  # nulls do not come to it

    def close(self) -> None:
        """Forget all tables and remove what was spilled."""
        self._finalizer()

    @contextmanager
    def _mendable(self) -> Iterator[None]:
        """What a user can mend about the engine, in one line."""
        try:
            yield
        except RecsysError:
            raise
        except Exception as error:  # the engine's own, or Arrow's where a stream carries it
            if (mendable := self._on.mendable(error)) is not None:
                raise DataError(mendable) from None
            raise


def _opened(config: EngineConfig) -> Operations:
    if config.kind == "spark":
        from feature_store.engine.spark import Spark

        return Spark(config)
    from feature_store.engine.embedded import Embedded

    return Embedded(config)
