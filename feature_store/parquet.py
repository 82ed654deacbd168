"""Reads Parquet and believes nothing that it can check: magic, page checksums, numbers of rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.errors import DataError

UNREADABLE = (pa.ArrowException, OSError)
_MAGIC = b"PAR1"


def open_parquet(path: Path, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """A file that verifies the checksums of the pages that are read, where it has them.

    Raises DataError for what is no whole Parquet file, or whose footer contradicts itself.
    """
    try:
        with open(path, "rb") as start:
            if start.read(len(_MAGIC)) != _MAGIC:  # readers look at the file's end alone
                raise pa.ArrowInvalid("it does not begin as Parquet does")
        file = pq.ParquetFile(path, metadata=footer, page_checksum_verification=True)
        if footer is None:
            _check_rows(file.metadata)
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    return file


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The columns of a file, or of all files of a folder, in that order, by default all; see
    `open_parquet`."""
    if path.is_dir():
        return pa.concat_tables(
            read_parquet(part, columns) for part in sorted(path.glob("[!._]*.parquet"))
        )
    with open_parquet(path) as file:
        try:
            table = file.read(columns=columns)
        except UNREADABLE as error:
            raise unreadable(path, error) from None
    return table if columns is None else table.select(columns)


def check_parquet(path: Path) -> None:
    """Read all of a file, a row group at a time. Raises DataError where a bit has changed."""
    with open_parquet(path) as file:
        for group in range(file.num_row_groups):
            try:
                rows = file.read_row_group(group).num_rows
            except UNREADABLE as error:
                raise unreadable(path, error) from None
            if rows != file.metadata.row_group(group).num_rows:
                raise unreadable(path, pa.ArrowInvalid(f"row group {group} lacks rows"))


def unreadable(path: Path, error: Exception) -> DataError:
    """What is said of a file that cannot be read."""
    why = str(error).splitlines()[0]
    return DataError(f"{path} cannot be read as Parquet ({why}): it may be truncated or altered")


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
