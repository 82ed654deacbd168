"""Reads Parquet and believes nothing that it can check: magic, page checksums, numbers of rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.errors import DataError
from feature_store.storage import Place, Remote, files_below, parts_below
from feature_store.storage.ranges import RemoteParquet

UNREADABLE = (pa.ArrowException, OSError)
_MAGIC = b"PAR1"


def open_parquet(path: Place, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """A file that verifies the checksums of the pages that are read, where it has them.

    Raises DataError for what is no whole Parquet file, or whose footer contradicts itself.
    """
    try:
        if isinstance(path, Remote):  # which has no half-written files
            file: pq.ParquetFile = RemoteParquet(path, footer)
        else:
            with open(path, "rb") as start:
                if start.read(len(_MAGIC)) != _MAGIC:  # readers look at the file's end alone
                    raise pa.ArrowInvalid("it does not begin as Parquet does")
            file = pq.ParquetFile(path, metadata=footer, page_checksum_verification=True)
        if footer is None:
            _check_rows(file.metadata)
    except FileNotFoundError:
        raise DataError(f"{path} cannot be read: there is no such file") from None
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    return file


def read_parquet(path: Place, columns: list[str] | None = None) -> pa.Table:
    """The columns of a file, or of all files of a folder, in that order, by default all; see
    `open_parquet`."""
    if path.is_dir():
        tables = [read_parquet(part, columns) for part in _parts(path)]
        try:
            return pa.concat_tables(tables)
        except pa.ArrowInvalid as error:
            raise unreadable(path, error) from None
    with open_parquet(path) as file:
        check_columns(path, file.schema_arrow, columns or [])
        try:
            table = file.read(columns=columns)
        except UNREADABLE as error:
            raise unreadable(path, error) from None
    return table if columns is None else table.select(columns)


def read_rows(path: Place, columns: list[str], name: str, among: pa.Array) -> pa.Table:
    """`read_parquet` of the rows whose column `name`, one of `columns`, holds a value of `among`;
    no more than a row group of others is held."""
    tables = []
    for part in _parts(path) if path.is_dir() else [path]:
        with open_parquet(part) as file:
            check_columns(part, file.schema_arrow, columns)
            tables.append(file.schema_arrow.empty_table().select(columns))
            for group in range(file.num_row_groups):
                try:
                    table = file.read_row_group(group, columns).select(columns)
                except UNREADABLE as error:
                    raise unreadable(part, error) from None
                values = among.cast(table.schema.field(name).type)
                tables.append(table.filter(pc.is_in(table.column(name), value_set=values)))
    return pa.concat_tables(tables)


def read_batches(
    path: Place, rows: int, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of at most so many rows, over all of a file, of its `columns`, by default all."""
    with open_parquet(path) as file:
        check_columns(path, file.schema_arrow, columns or [])
        batches = file.iter_batches(rows, columns=columns)
        while True:
            try:
                batch = next(batches, None)
            except UNREADABLE as error:
                raise unreadable(path, error) from None
            if batch is None:
                return
            yield batch


def check_parquet(path: Place) -> None:
    """Read all of a file, a row group at a time. Raises DataError where a bit has changed."""
    with open_parquet(path) as file:
        for group in range(file.num_row_groups):
            try:
                rows = file.read_row_group(group).num_rows
            except UNREADABLE as error:
                raise unreadable(path, error) from None
            if rows != file.metadata.row_group(group).num_rows:
                raise unreadable(path, pa.ArrowInvalid(f"row group {group} lacks rows"))


def check_columns(path: Place, schema: pa.Schema, wanted: Collection[str]) -> None:
    """Raises DataError where a file lacks a column that its readers know it to have."""
    if missing := [name for name in wanted if name not in schema.names]:
        raise DataError(
            f"{path} has no column {missing[0]!r}: it is of another schema, as if another program "
            f"had written it; it has: {', '.join(schema.names)}"
        )


def unreadable(path: Place, error: Exception) -> DataError:
    """What is said of a file that cannot be read."""
    why = str(error).splitlines()[0]
    return DataError(f"{path} cannot be read as Parquet ({why}): it may be truncated or altered")


def _parts(folder: Place) -> list[Place]:
    """The files of a folder in their order; a name that begins with `_` or `.`, at any level, is
    of a file that was not finished, or of a program's own."""
    parts = [
        path
        for path in files_below(folder, "*.parquet")
        if not any(part[0] in "._" for part in parts_below(path, folder))
    ]
    if not parts:
        raise DataError(f"{folder} cannot be read: it holds no Parquet files")
    return parts


def _check_rows(footer: pq.FileMetaData) -> None:
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    if sum(group.num_rows for group in groups) != footer.num_rows:
        raise pa.ArrowInvalid("its number of rows is not that of its row groups")
    flat = [
        place
        for place in range(footer.num_columns)
        if footer.schema.column(place).max_repetition_level == 0
    ]
    for number, group in enumerate(groups):
        if any(group.column(place).num_values != group.num_rows for place in flat):
            raise pa.ArrowInvalid(f"row group {number} has columns of unlike lengths")
