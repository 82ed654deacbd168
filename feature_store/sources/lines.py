"""Text whose lines are more than delimited values: JSON objects, or a user with all its items."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from feature_store.sources.base import BadRow, RawChunk
from feature_store.sources.text_table import BLOCK_BYTES, TextFormat, read_text

# A line never holds a newline, so that one column takes it whole.
_WHOLE_LINES = TextFormat(("line",), delimiter="\n", final_newline=False)
_LONGEST_RECORD = 1 << 20  # characters; a parser takes some hundred times as many
_RECORDS = 1 << 14  # in a chunk: as objects they are far larger than as text
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_NO_RECORD = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def read_lines(
    stream: IO[bytes], file: str, *, comment: str | None = None, block_bytes: int = BLOCK_BYTES
) -> Iterator[RawChunk]:
    """Chunks of one column `line`: no space around, neither blank nor begun by `comment`.

    Raises:
        DataError: the file is empty, or a line is longer than a block.
    """
    for chunk in read_text(stream, file, _WHOLE_LINES, block_bytes=block_bytes):
        lines = pc.utf8_trim_whitespace(chunk.table["line"].combine_chunks())
        keep = pc.not_equal(lines, "")
        if comment is not None:
            keep = pc.and_not(keep, pc.starts_with(lines, comment))
        table = pa.table({"line": lines.filter(keep)})
        yield replace(chunk, table=table, lines=chunk.lines[np.asarray(keep)])


def read_lists(
    stream: IO[bytes], file: str, *, integers: bool = True, block_bytes: int = BLOCK_BYTES
) -> Iterator[RawChunk]:
    """Lines of `user item item ...` as one row an item: `user_id`, `item_id`, `place` from 1.

    Lines that begin with `#` are comments. A user without items yields no row; where ids are
    `integers` such a line must still hold one, or any stray word would pass for a user.

    Raises:
        DataError: the file is empty, or a line is longer than a block.
    """
    for chunk in read_lines(stream, file, comment="#", block_bytes=block_bytes):
        words = pc.utf8_split_whitespace(chunk.table["line"].combine_chunks())
        counts = np.asarray(pc.list_value_length(words))
        words = words.flatten()
        first = np.cumsum(counts) - counts  # of each line among all words
        is_item = np.ones(len(words), dtype=bool)
        is_item[first] = False
        users = np.repeat(first, counts - 1)
        place = np.flatnonzero(is_item) - users
        bad = list(chunk.bad)
        for at in np.flatnonzero(counts == 1) if integers else ():
            line, word = int(chunk.lines[at]), words[first[at]].as_py()
            if not _INTEGER.fullmatch(word):
                bad.append(BadRow(line, "user_id", "is not an integer", word, word))
        table = pa.table(
            {
                "user_id": words.take(pa.array(users)),
                "item_id": words.filter(pa.array(is_item)),
                "place": pa.array(place),
            }
        )
        lines = np.repeat(chunk.lines, counts - 1)
        yield replace(chunk, table=table, lines=lines, bad=sorted(bad, key=lambda b: b.line))


def read_records(
    stream: IO[bytes], file: str, row: type[BaseModel], *, block_bytes: int = BLOCK_BYTES
) -> Iterator[RawChunk]:
    """One JSON object a line, as the columns that the fields of `row` name.

    A line that is no JSON is tried as a Python literal, which early publishers wrote instead.
    Objects that `row` does not validate are bad rows, named by the first field that is wrong.

    Raises:
        DataError: the file is empty, or a line is longer than a block.
    """
    chunks = read_lines(stream, file, block_bytes=block_bytes)
    for chunk in (part for whole in chunks for part in _parts(whole)):
        rows, lines, bad = [], [], list(chunk.bad)
        for line, text in zip(chunk.lines.tolist(), chunk.table["line"].to_pylist(), strict=True):
            if len(text) > _LONGEST_RECORD:
                reason = f"is a record of more than {_LONGEST_RECORD:,} characters"
                bad.append(BadRow(line, "", reason, text))
                continue
            try:
                record = row.model_validate(_record(text))
                if "\\u" in text:
                    record.model_dump_json()  # half a surrogate pair fits in no file
                rows.append(record)
                lines.append(line)
            except ValidationError as error:
                bad.append(_misfit(error, line, text, row))
            except PydanticSerializationError:
                bad.append(BadRow(line, "", "holds half of a surrogate pair", text))
            except _NO_RECORD:
                bad.append(BadRow(line, "", "is not a JSON object", text))
        table = pa.table(
            {name: [getattr(record, name) for record in rows] for name in row.model_fields}
        )
        numbers = np.array(lines, dtype=np.int64)
        yield replace(chunk, table=table, lines=numbers, bad=sorted(bad, key=lambda b: b.line))


def _parts(chunk: RawChunk) -> Iterator[RawChunk]:
    """A chunk in parts of few rows; the first speaks for what is bad and what was read."""
    for start in range(0, max(1, chunk.table.num_rows), _RECORDS):
        table, lines = chunk.table.slice(start, _RECORDS), chunk.lines[start : start + _RECORDS]
        first = start == 0
        yield RawChunk(
            table, chunk.file, lines, chunk.bad if first else [], chunk.read_bytes if first else 0
        )


def _record(text: str) -> dict[str, Any]:
    """The object that a line holds. Raises one of `_NO_RECORD` when it holds none."""
    if not text.startswith("{"):
        raise ValueError("no object")
    try:
        record = json.loads(text)
    except ValueError:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            record = ast.literal_eval(text)
    if not isinstance(record, dict):
        raise ValueError("no object")
    return record


def _misfit(error: ValidationError, line: int, text: str, row: type[BaseModel]) -> BadRow:
    """The first field that is wrong, under the name that the line gives it."""
    first = error.errors(include_url=False)[0]
    column = str(first["loc"][0])
    if first["type"] == "missing":
        aliases = [field.validation_alias for field in row.model_fields.values()]
        known = [a.choices for a in aliases if isinstance(a, AliasChoices) and column in a.choices]
        return BadRow(
            line, " or ".join(map(str, known[0] if known else [column])), "is absent", text
        )
    return BadRow(line, column, first["msg"].removeprefix("Input "), text, str(first["input"]))
