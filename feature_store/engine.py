"""Engine: lazy tables of any size, on an embedded engine that spills to disk.

Tables are Ibis expressions; this file alone knows which engine computes them.
"""

from __future__ import annotations

import glob
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
from pydantic import Field

from feature_store.errors import DataError
from feature_store.hashing import CODE_OF_ZERO, codes_of
from feature_store.leftovers import Scratch
from feature_store.options import Options
from feature_store.storage import Place, Remote

if TYPE_CHECKING:  # loaded with the first engine: options are read without one
    import ibis.expr.types as ir

STREAM_ROWS = 1 << 16
_GIB = 1 << 30
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container, below the machine's memory


class EngineConfig(Options):
    """Where tables of events are sorted, joined and counted."""

    kind: Literal["duckdb"] = Field("duckdb", description="The embedded engine, the only one yet.")
    memory_gb: float | None = Field(
        None,
        gt=0,
        description="GiB that tables may take before they spill to the folder of temporary files "
        "(TMPDIR); by default a quarter of the machine's, from 1 to 4. Less is slower, not wrong.",
    )
    threads: int | None = Field(None, ge=1, description="By default one a core.")

    @property
    def memory_gib(self) -> float:
        """The limit in GiB, whoever chose it."""
        return self.memory_gb or min(4.0, max(1.0, _machine_memory() / 4 / _GIB))


class Engine:
    """A connection and the tables made through it; `close`, or leaving a `with`, removes all.

    An expression is computed when it is cached, collected or streamed, and all three raise
    DataError where memory and disk do not suffice.
    """

    def __init__(self, config: EngineConfig | None = None) -> None:
        import ibis

        self.config = config or EngineConfig()
        try:
            scratch = Scratch("engine")
        except OSError as error:
            raise DataError(
                f"no temporary files can be made ({error.strerror}): free some of the disk below "
                "TMPDIR, or set it to another one"
            ) from None
        self._spill = scratch.path
        settings: dict[str, str] = {
            "memory_limit": f"{self.config.memory_gib}GiB",
            "temp_directory": str(self._spill),
        }
        if self.config.threads is not None:
            settings["threads"] = str(self.config.threads)
        self._backend = ibis.duckdb.connect(**settings)
        self._finalizer = weakref.finalize(self, _close, self._backend, scratch)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    @property
    def description(self) -> str:
        """What computes, with its version."""
        import ibis

        return f"ibis {ibis.__version__} on {self.config.kind} {self._backend.version}"

    def scan(self, files: Sequence[Place]) -> ir.Table:
        """The rows of Parquet files of one schema."""
        remote = [file for file in files if isinstance(file, Remote)]
        if remote:
            return self._scan_remote(remote)
        # neither brackets nor `name=value` folders in a path mean anything here
        paths = [glob.escape(str(path)) for path in files]
        return self._backend.read_parquet(paths, hive_partitioning=False)

    def _scan_remote(self, files: Sequence[Remote]) -> ir.Table:
        """As `scan`. Ibis would fetch an extension of DuckDB's for URLs, and they are read through
        fsspec here."""
        import ibis

        for file in files:
            if not self._backend.con.filesystem_is_registered(file.protocol):
                self._backend.con.register_filesystem(file.filesystem)
        name = ibis.util.gen_name("remote")
        urls = ", ".join("'" + glob.escape(str(file)).replace("'", "''") + "'" for file in files)
        with self._mendable():
            self._backend.raw_sql(
                f'CREATE TEMP VIEW "{name}" AS '
                f"SELECT * FROM read_parquet([{urls}], hive_partitioning = false)"
            )
        return self._backend.table(name)

    def table(self, rows: pa.Table) -> ir.Table:
        """The rows of a table in memory, copied into the engine's own."""
        import ibis

        return self._backend.create_table(ibis.util.gen_name("table"), rows, temp=True)

    def cache(self, rows: ir.Table) -> ir.Table:
        """The same rows, computed once."""
        import ibis

        with self._mendable():
            return self._backend.create_table(ibis.util.gen_name("cache"), rows, temp=True)

    def collect(self, rows: ir.Table) -> pa.Table:
        """The rows in memory: for results that are known to be small."""
        with self._mendable():
            return rows.to_pyarrow()

    def stream(self, rows: ir.Table, batch_rows: int = STREAM_ROWS) -> Iterator[pa.RecordBatch]:
        """The rows batch by batch, in their order; at least one batch, which may be empty."""
        with self._mendable():
            batches = rows.to_pyarrow_batches(chunk_size=batch_rows)
            empty = True
            for batch in batches:
                empty = False
                yield batch
            if empty:
                yield pa.RecordBatch.from_pylist([], batches.schema)

    def codes(self, ids: ir.Column) -> ir.IntegerColumn:
        """The 64-bit codes of a column of ids, as `feature_store.hashing.codes_of`; strings go
        through it in batches, so that nothing is kept of them."""
        if ids.type().is_integer():
            key = ids.cast("int64")
            return (key == 0).ifelse(CODE_OF_ZERO, key).fill_null(0)
        return _codes_of_strings()(ids).fill_null(0)  # nulls do not come to it

    def close(self) -> None:
        """Forget all tables and remove what was spilled."""
        self._finalizer()

    @contextmanager
    def _mendable(self) -> Iterator[None]:
        """What a user can mend about the engine, in one line."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:  # the engine's own, or Arrow's where a stream carries it
            text = str(error)
            if "No space left" in text or "max_temp_directory_size" in text:
                raise DataError(
                    f"the disk below {self._spill.parent}, to which tables spill, is full: free "
                    "some of it, set TMPDIR to another disk, or raise engine.memory_gb"
                ) from None
            if "Out of Memory" in text:
                raise DataError(
                    f"tables need more than engine.memory_gb = {self.config.memory_gib:g} GiB: "
                    f"raise it, or lower engine.threads (tables spill to {self._spill.parent})"
                ) from None
            raise


@cache
def _codes_of_strings() -> Callable[[ir.Column], ir.IntegerColumn]:
    import ibis

    @ibis.udf.scalar.pyarrow(signature=(("string",), "int64"))
    def codes_of_strings(ids: pa.Array) -> pa.Array:
        return pa.array(codes_of(ids))

    return codes_of_strings  # type: ignore[no-any-return]


def _close(backend: object, scratch: Scratch) -> None:
    backend.disconnect()  # type: ignore[attr-defined]
    scratch.close()


def _machine_memory() -> int:
    """Bytes of memory that this process may have."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(machine, int(_CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no control group, or one without a limit
        return machine
