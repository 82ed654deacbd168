"""Tables by rows: which rows an old one has, and a new one written as it was."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.durable import write_parquet
from feature_store.errors import DataError
from feature_store.parquet import read_parquet
from feature_store.vocabulary import Vocabulary
from recsys.serving.delta.record import Writer
from recsys.serving.delta.runs import NEW, places


def read_table(path: Path) -> tuple[pa.Table, list[int]]:
    """A table in a Parquet or an Arrow file, and the rows of its batches, of Parquet none.

    Raises DataError for what cannot be read.
    """
    if path.suffix == ".parquet":
        return read_parquet(path), []
    return table_of(path.read_bytes(), path)


def table_of(contents: bytes, path: Path) -> tuple[pa.Table, list[int]]:
    """A table in the contents of an Arrow file, and the rows of its batches. Raises DataError."""
    try:
        reader = pa.ipc.open_file(pa.py_buffer(contents))
        batches = [reader.get_batch(place) for place in range(reader.num_record_batches)]
        table = pa.Table.from_batches(batches, reader.schema)
        table.validate(full=True)  # Arrow reads what a file says without looking at it
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    return table, [batch.num_rows for batch in batches]


def arrow_of(table: pa.Table) -> bytes:
    """The contents of an Arrow file."""
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def write_table(table: pa.Table, writer: Writer, batches: Sequence[int], path: Path) -> None:
    """Write a table as an export does."""
    if writer == "parquet":
        write_parquet(table, path)
    elif writer == "vocabulary":
        Vocabulary(_whole(table.column("id"))).save(path)
    else:
        table = table.combine_chunks()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
            start = 0
            for rows in batches:
                file.write_batch(table.slice(start, rows).combine_chunks().to_batches()[0])
                start += rows


def sources(old: pa.Table, new: pa.Table, key: str) -> np.ndarray:
    """Of every row [n] of a table its place in the old one, NEW where that has no such row; rows
    are looked for by their ids, in the column `key`."""
    ids = _whole(old.column(key))
    source = Vocabulary(ids).encode(_whole(new.column(key))) - 1
    there = np.flatnonzero(source >= 0)
    before, after = old.take(pa.array(source[there])), new.take(pa.array(there))
    for name in new.column_names:
        same = equal(_whole(before.column(name)), _whole(after.column(name)))
        source[there[~same]] = NEW
    return source


def made_of_rows(old: pa.Table, runs: np.ndarray, fresh: pa.Table) -> pa.Table:
    """A table of rows of an old one and of new rows."""
    return pa.concat_tables([old, fresh]).take(pa.array(places(runs, old.num_rows)))


def equal(some: pa.Array, others: pa.Array) -> np.ndarray:
    """Whether values [n] are the same to the last bit; both null is the same."""
    if pa.types.is_list(some.type):
        return _equal_lists(some, others)
    if pa.types.is_floating(some.type):
        kind = pa.int32() if some.type.bit_width == 32 else pa.int64()
        some, others = some.view(kind), others.view(kind)
    both = pc.and_(some.is_null(), others.is_null())
    return np.asarray(pc.or_(both, pc.fill_null(pc.equal(some, others), False)))


def _equal_lists(some: pa.Array, others: pa.Array) -> np.ndarray:
    lengths = [pc.list_value_length(values) for values in (some, others)]
    alike = np.array(equal(*lengths))
    rows = pa.array(
        np.flatnonzero(alike & np.asarray(pc.fill_null(pc.greater(lengths[0], 0), False)))
    )
    if len(rows):
        kept = [values.take(rows) for values in (some, others)]
        values = equal(*(values.flatten() for values in kept))
        firsts = np.cumsum([0, *lengths[0].take(rows).to_pylist()])[:-1]
        alike[rows.to_numpy()] = np.logical_and.reduceat(values, firsts)
    return alike


def _whole(column: Any) -> pa.Array:
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.array([], column.type)
