"""Text with a header and commas or tabs, told by the file's name."""

from __future__ import annotations

from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import DataError
from feature_store.sources.files import open_binary
from feature_store.sources.text_table import TextFormat, read_text
from feature_store.storage import Place

DELIMITERS = {".csv": ",", ".tsv": "\t"}
"""By the suffix that says so."""
_HEADER_BYTES = 1 << 16


def is_text(path: Place) -> bool:
    """Whether a file is called `.csv` or `.tsv`, perhaps with `.gz` behind."""
    return _suffix(path) in DELIMITERS


def layout_of(path: Place, columns: tuple[str, ...] = ()) -> TextFormat:
    """How the table lies in such a file, which holds at least `columns`."""
    delimiter = DELIMITERS[_suffix(path)]
    return TextFormat(columns, delimiter, header=True, quoted=True, final_newline=False)


def header_of(path: Place) -> list[str]:
    """The names of the columns of such a file. Raises DataError where they cannot be read."""
    with open_binary(path) as stream:
        chunk = next(read_text(stream, str(path), layout_of(path), block_bytes=_HEADER_BYTES))
    return list(chunk.table.column_names)


def read_whole(path: Place) -> pa.Table:
    """All rows of such a file as texts without blanks around them; an empty one is null.

    Raises DataError, naming the line, where one cannot be read.
    """
    tables = []
    with open_binary(path) as stream:
        for chunk in read_text(stream, str(path), layout_of(path)):
            if chunk.bad:
                bad = chunk.bad[0]
                raise DataError(f"{path}:{bad.line}: {bad.reason}: {bad.raw[:80]}")
            tables.append(chunk.table)
    table = pa.concat_tables(tables)
    texts = [pc.utf8_trim_whitespace(column) for column in table.columns]
    nulled = [pc.if_else(pc.equal(text, ""), None, text) for text in texts]
    return pa.table(nulled, names=table.column_names)


def _suffix(path: Place) -> str:
    """The last suffix of its name, before `.gz`."""
    return PurePosixPath(path.stem if path.suffix == ".gz" else path.name).suffix
