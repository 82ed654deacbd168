"""Apache Spark: rows stay on the executors, and so does the work on them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import ibis
import pyarrow as pa
from sqlglot import exp

from feature_store.engine.config import EngineConfig
from feature_store.engine.operations import Operations
from feature_store.engine.spark_session import cause, new_session
from feature_store.errors import ConfigError, DataError, RecsysError
from feature_store.hashing import codes_of
from feature_store.parquet import open_parquet
from feature_store.storage import Place, Remote, place

if TYPE_CHECKING:
    import ibis.expr.types as ir

_MOST_ROW_GROUPS_A_TASK = 8
T = TypeVar("T")


class Spark(Operations):
    """A session of its own in this process's application, which starts with the first and ends
    with the process."""

    def __init__(self, config: EngineConfig) -> None:
        self._session = new_session(config)
        self._backend = ibis.pyspark.connect(self._session)
        self._held: list[Any] = []

    @property
    def version(self) -> str:
        return f"spark {self._session.version}"

    def scan(self, files: Sequence[Place]) -> ir.Table:
        remote = [file for file in files if isinstance(file, Remote)]
        if remote:
            return self._scan_remote(remote)
        paths = [f"file://{path.absolute()}" for path in files if not isinstance(path, Remote)]
        # neither brackets nor `name=value` folders in a path mean anything here
        reader = self._session.read.option("__globPaths__", "false")
        return self._named(reader.option("recursiveFileLookup", "true").parquet(*paths))

    def _scan_remote(self, files: Sequence[Remote]) -> ir.Table:
        """As `scan`; read through fsspec, as everywhere, so that it needs nothing of Hadoop's."""
        groups = []
        for file in files:
            with open_parquet(file) as opened:
                schema = opened.schema_arrow.remove_metadata()
                groups += [(str(file), n) for n in range(opened.metadata.num_row_groups)]
        tasks = max(1, -(-len(groups) // _MOST_ROW_GROUPS_A_TASK))
        urls, numbers = [url for url, _ in groups], [number for _, number in groups]
        wanted = pa.table({"url": urls, "number": numbers})
        frame = self._session.createDataFrame(wanted).repartition(tasks)
        kind = self._session.createDataFrame(schema.empty_table()).schema

        def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for group in batch.to_pylist():
                    with open_parquet(place(group["url"])) as opened:
                        rows = opened.read_row_group(group["number"])
                        yield from rows.cast(schema).to_batches()

        return self._named(frame.mapInArrow(read, kind))

    def table(self, rows: pa.Table) -> ir.Table:
        return self._named(self._session.createDataFrame(rows))

    def cache(self, rows: ir.Table) -> ir.Table:
        frame = self._frame(rows).persist()
        self._held.append(frame)
        return self._named(frame)

    def collect(self, rows: ir.Table) -> pa.Table:
        return self._frame(rows).toArrow().cast(rows.schema().to_pyarrow())

    def stream(self, rows: ir.Table, batch_rows: int) -> Iterator[pa.RecordBatch]:
        schema = rows.schema().to_pyarrow()

        def written(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, schema) as writer:
                    writer.write_batch(batch.cast(schema))
                yield pa.record_batch({"batch": [sink.getvalue().to_pybytes()]})

        frame = self._frame(rows).mapInArrow(written, "batch binary")
        for row in frame.toLocalIterator():
            for batch in pa.ipc.open_stream(bytes(row["batch"])):
                for start in range(0, batch.num_rows, batch_rows):
                    yield batch.slice(start, batch_rows)

    def parts(
        self,
        rows: ir.Table,
        keys: Sequence[str],
        columns: Sequence[str],
        work: Callable[[Iterator[pa.RecordBatch], str], T],
        together: bool,
    ) -> list[T]:
        """Each partition where it lies."""
        from pyspark import TaskContext
        from pyspark.sql import functions as F

        schema = rows.select(list(columns)).schema().to_pyarrow()
        sorts = [F.col(name).asc_nulls_last() for name in keys]
        frame = self._frame(rows)
        if together:
            frame = frame.repartitionByRange(sorts[0]).sortWithinPartitions(*sorts)
        else:
            frame = frame.orderBy(*sorts)
        frame = frame.select(*map(_quoted, columns))

        def worked(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            task = TaskContext.get()
            assert task is not None
            number = task.partitionId()
            rows_of_part = (batch.cast(schema) for batch in batches)
            first = next(rows_of_part, pa.RecordBatch.from_pylist([], schema))
            done: dict[str, Any]
            try:
                every = itertools.chain([first], rows_of_part)
                # an attempt may follow one that failed, or run beside another
                done = {"result": work(every, f"{number:05d}-{task.taskAttemptId()}")}
            except RecsysError as error:  # trying again would not help
                done = {"error": str(error), "configured": isinstance(error, ConfigError)}
            yield pa.record_batch({"part": [number], "done": [json.dumps(done)]})

        parts = frame.mapInArrow(worked, "part long, done string").toArrow()
        results = []
        for part in sorted(parts.to_pylist(), key=lambda part: part["part"]):
            done = json.loads(part["done"])
            if "error" in done:
                raise (ConfigError if done["configured"] else DataError)(done["error"])
            results.append(done["result"])
        return results

    def codes_of_strings(self, ids: ir.Column) -> ir.IntegerColumn:
        return _codes_of_strings()(ids)

    def mendable(self, error: Exception) -> str | None:
        text = cause(error)
        return None if text is None else f"Spark failed: {text}"

    def close(self) -> None:
        for frame in self._held:
            frame.unpersist()
        self._held.clear()

    def _frame(self, rows: ir.Table) -> Any:
        self._backend._run_pre_execute_hooks(rows)  # registers functions
        query = self._backend.compiler.to_sqlglot(rows).transform(_double)
        return self._session.sql(query.sql(dialect=self._backend.dialect))

    def _named(self, frame: Any) -> ir.Table:
        name = ibis.util.gen_name("view")
        frame.createOrReplaceTempView(name)
        return self._backend.table(name)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _double(node: Any) -> Any:
    """0.5 is a decimal to Spark, and 0.5E0 the number that Ibis means."""
    if isinstance(node, exp.Literal) and not node.is_string and "." in node.this:
        return node if "e" in node.this.lower() else exp.Literal.number(f"{node.this}E0")
    return node


@cache
def _codes_of_strings() -> Callable[[ir.Column], ir.IntegerColumn]:
    @ibis.udf.scalar.pandas(signature=(("string",), "int64"))
    def codes_of_strings(ids: Any) -> Any:
        import pandas

        return pandas.Series(codes_of(pa.array(ids, pa.string())))

    return codes_of_strings  # type: ignore[no-any-return]
