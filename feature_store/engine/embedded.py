"""DuckDB, in this process: tables spill to a folder of temporary files."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import ibis
import pyarrow as pa

from feature_store.engine.config import EngineConfig
from feature_store.engine.operations import Operations
from feature_store.errors import DataError
from feature_store.hashing import codes_of
from feature_store.leftovers import Scratch
from feature_store.storage import Place, Remote

if TYPE_CHECKING:
    import ibis.expr.types as ir

_PART_ROWS = 1 << 16
T = TypeVar("T")


class Embedded(Operations):
    """A database in memory that spills to a folder of its own."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        try:
            self._scratch = Scratch("engine")
        except OSError as error:
            raise DataError(
                f"no temporary files can be made ({error.strerror}): free some of the disk below "
                "TMPDIR, or set it to another one"
            ) from None
        settings: dict[str, str] = {
            "memory_limit": f"{config.memory_gib}GiB",
            "temp_directory": str(self._scratch.path),
        }
        if config.threads is not None:
            settings["threads"] = str(config.threads)
        self._backend = ibis.duckdb.connect(**settings)

    @property
    def version(self) -> str:
        return f"duckdb {self._backend.version}"

    def scan(self, files: Sequence[Place]) -> ir.Table:
        remote = [file for file in files if isinstance(file, Remote)]
        if remote:
            return self._scan_remote(remote)
        # neither brackets nor `name=value` folders in a path mean anything here
        paths = [glob.escape(str(path)) for path in files]
        return self._backend.read_parquet(paths, hive_partitioning=False)

    def _scan_remote(self, files: Sequence[Remote]) -> ir.Table:
        """As `scan`. Ibis would fetch an extension of DuckDB's for URLs, and they are read through
        fsspec here."""
        for file in files:
            if not self._backend.con.filesystem_is_registered(file.protocol):
                self._backend.con.register_filesystem(file.filesystem)
        name = ibis.util.gen_name("remote")
        urls = ", ".join("'" + glob.escape(str(file)).replace("'", "''") + "'" for file in files)
        self._backend.raw_sql(
            f'CREATE TEMP VIEW "{name}" AS '
            f"SELECT * FROM read_parquet([{urls}], hive_partitioning = false)"
        )
        return self._backend.table(name)

    def table(self, rows: pa.Table) -> ir.Table:
        return self._backend.create_table(ibis.util.gen_name("table"), rows, temp=True)

    def cache(self, rows: ir.Table) -> ir.Table:
        return self._backend.create_table(ibis.util.gen_name("cache"), rows, temp=True)

    def collect(self, rows: ir.Table) -> pa.Table:
        return rows.to_pyarrow()

    def stream(self, rows: ir.Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        batches = rows.to_pyarrow_batches(chunk_size=batch_rows)
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            yield pa.RecordBatch.from_pylist([], batches.schema)

    def parts(
        self,
        rows: ir.Table,
        keys: Sequence[str],
        columns: Sequence[str],
        work: Callable[[Iterator[pa.RecordBatch], str], T],
        together: bool,
    ) -> list[T]:
        """One part, here."""
        ordered = rows.order_by(list(keys)).select(list(columns))
        return [work(self.stream(ordered, _PART_ROWS), "00000")]

    def codes_of_strings(self, ids: ir.Column) -> ir.IntegerColumn:
        return _codes_of_strings()(ids)

    def mendable(self, error: Exception) -> str | None:
        text, folder = str(error), self._scratch.path.parent
        if "No space left" in text or "max_temp_directory_size" in text:
            return (
                f"the disk below {folder}, to which tables spill, is full: free "
                "some of it, set TMPDIR to another disk, or raise engine.memory_gb"
            )
        if "Out of Memory" in text:
            return (
                f"tables need more than engine.memory_gb = {self._config.memory_gib:g} GiB: "
                f"raise it, or lower engine.threads (tables spill to {folder})"
            )
        return None

    def close(self) -> None:
        self._backend.disconnect()
        self._scratch.close()


@cache
def _codes_of_strings() -> Callable[[ir.Column], ir.IntegerColumn]:
    @ibis.udf.scalar.pyarrow(signature=(("string",), "int64"))
    def codes_of_strings(ids: pa.Array) -> pa.Array:
        return pa.array(codes_of(ids))

    return codes_of_strings  # type: ignore[no-any-return]
