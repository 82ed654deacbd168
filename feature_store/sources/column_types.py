"""The type of every column over all files of a log: part files may differ, their values not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.ids import integers, plain
from feature_store.storage import Place

Family = Literal["integer", "fraction", "text", "other"]

NUMBERS: set[tuple[Family, bool]] = {("integer", False), ("fraction", False)}
_STRINGS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_LISTS = (pa.types.is_list, pa.types.is_large_list)
_INT64_DIGITS = 18  # that every number has which surely fits


@dataclass(frozen=True)
class ColumnType:
    """What a column holds: a family of values, alone or in lists.

    `files` says of each type which file is the first that has values of it; `untyped` that the
    values are texts because CSV knows no others.
    """

    family: Family
    lists: bool
    files: dict[pa.DataType, Place]
    untyped: bool = False

    @property
    def kind(self) -> pa.DataType:
        """The first file's type."""
        return next(iter(self.files))

    @property
    def families(self) -> set[tuple[Family, bool]]:
        """The families of the files; more than one where they are not alike."""
        return {family_of(kind) for kind in self.files}

    @property
    def differences(self) -> str:
        """Which type stands in which file, of each family one."""
        alike = {family_of(kind): (kind, path) for kind, path in reversed(self.files.items())}
        return ", ".join(f"{kind} in {path}" for kind, path in reversed(alike.values()))

    def beside(self, other: ColumnType) -> ColumnType:
        """The same column with the files of another besides."""
        return replace(self, files=self.files | other.files, untyped=self.untyped and other.untyped)


def family_of(kind: pa.DataType) -> tuple[Family, bool]:
    """The family of a type's values, and whether they stand in lists."""
    if pa.types.is_dictionary(kind):
        return family_of(kind.value_type)
    if any(is_list(kind) for is_list in _LISTS):
        return family_of(kind.value_type)[0], True
    if any(is_text(kind) for is_text in _STRINGS):
        return "text", False
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "integer", False
    if pa.types.is_decimal(kind):
        return ("integer" if kind.scale <= 0 else "fraction"), False
    return ("fraction" if pa.types.is_floating(kind) else "other"), False


def text_columns(names: Sequence[str], path: Place) -> dict[str, ColumnType]:
    """The columns of a text file."""
    return {name: ColumnType("text", False, {pa.string(): path}, untyped=True) for name in names}


def parquet_columns(files: Sequence[tuple[Place, pq.ParquetFile]]) -> dict[str, ColumnType]:
    """The columns of Parquet files together, in the order in which they are met.

    A file without rows, and a column without values, say nothing of a type. Whole numbers of
    which one is beyond 64 bits are texts of their digits, in all files.

    Raises an error of Arrow, or OSError, for a file that cannot be read.
    """
    kinds: dict[str, dict[pa.DataType, Place]] = {}
    for path, file in files:
        for name, kind in zip(file.schema_arrow.names, file.schema_arrow.types, strict=True):
            kinds.setdefault(name, {}).setdefault(kind, path)
    columns = {}
    for name, of_files in kinds.items():
        if len(of_files) > 1:
            of_files = _with_values(name, files) or of_files
        kinds_of_values = {family_of(kind) for kind in of_files}
        family, lists = family_of(next(iter(of_files)))
        if kinds_of_values == NUMBERS:
            family = "fraction"
        elif family == "integer" and _any_beyond(name, of_files, files):
            family = "text"
        columns[name] = ColumnType(family, lists, of_files)
    return columns


def _with_values(
    name: str, files: Sequence[tuple[Place, pq.ParquetFile]]
) -> dict[pa.DataType, Place]:
    """The types of a column in the files that have a value of it, and the first with each."""
    of_files: dict[pa.DataType, Place] = {}
    for path, file in files:
        if name in file.schema_arrow.names and not _is_empty(name, file):
            of_files.setdefault(file.schema_arrow.field(name).type, path)
    return of_files


def _is_empty(name: str, file: pq.ParquetFile) -> bool:
    if not file.metadata.num_rows:
        return True
    parts = _statistics(name, file)
    if parts and all(part.has_null_count for part in parts):
        return sum(part.null_count for part in parts) == file.metadata.num_rows
    return all(not len(values.drop_null()) for values in _values(name, file))


def _any_beyond(
    name: str,
    of_files: dict[pa.DataType, Place],
    files: Sequence[tuple[Place, pq.ParquetFile]],
) -> bool:
    if not any(_may_exceed(kind) for kind in of_files):
        return False
    return any(
        name in file.schema_arrow.names
        and _may_exceed(file.schema_arrow.field(name).type)
        and _exceeds(name, file)
        for _, file in files
    )


def _may_exceed(kind: pa.DataType) -> bool:
    """Whether a type of whole numbers has more than 64 bits with a sign."""
    if any(is_list(kind) for is_list in _LISTS):
        return _may_exceed(kind.value_type)
    if pa.types.is_decimal(kind):
        return kind.precision - kind.scale > _INT64_DIGITS
    return pa.types.is_uint64(kind)


def _exceeds(name: str, file: pq.ParquetFile) -> bool:
    """Whether a value is beyond 64 bits: from the footer, or from the values where it is silent."""
    parts = _statistics(name, file)
    if parts and all(part.has_min_max for part in parts):
        extremes = [int(value) for part in parts for value in (part.min, part.max)]
        return any(not -(1 << 63) <= value < 1 << 63 for value in extremes)
    for values in _values(name, file):
        whole = values.drop_null()
        if integers(whole).null_count:
            return True
    return False


def _statistics(name: str, file: pq.ParquetFile) -> list[Any]:
    """Of a plain column in every row group, where all have them; nothing of lists, whose counts are
    of their values."""
    footer = file.metadata
    leaves = [n for n in range(footer.num_columns) if file.schema.column(n).path == name]
    groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
    parts = [group.column(leaf).statistics for group in groups for leaf in leaves]
    return [] if any(part is None for part in parts) else parts


def _values(name: str, file: pq.ParquetFile) -> Iterator[pa.Array]:
    """A column batch by batch, lists flattened."""
    for batch in file.iter_batches(columns=[name]):
        values = plain(batch.column(name))  # `a.b` comes with `a`
        yield plain(pc.list_flatten(values)) if pa.types.is_nested(values.type) else values
