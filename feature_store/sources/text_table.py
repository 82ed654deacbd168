"""Delimited text of any size, block by block, with every line that is no row named."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import DataError
from feature_store.sources.base import BadRow, RawChunk

BLOCK_BYTES = 16 << 20
LONGEST_LINE = 16 << 20  # bytes
_TORN = "the file ends inside a line: it may be truncated"
_NUL = "holds a NUL byte"
_LONG = f"is a line of more than {LONGEST_LINE:,} bytes"
_RETURN = "holds a carriage return that ends no line"
_MARKS = (b"\xff\xfe", b"\xfe\xff")  # how UTF-16 and UTF-32 begin

csv.field_size_limit(LONGEST_LINE)  # what fits in a line is not broken


@dataclass(frozen=True)
class TextFormat:
    """How a table lies in text. One line is one row; blank lines hold none.

    Attributes:
        columns: names of the columns, in the file's order; with `header`, the columns the
            header must hold, in any order and among others.
        delimiter: one or more characters between values; exactly one when `quoted`.
        quoted: values may stand in double quotes, a quote within them doubled.
        escape: a character that makes the next one literal within quotes.
        final_newline: the format promises that the last line ends with a newline.
        line_end: what ends a line. With "\\r\\n" a lone line feed is part of the value it stands
            in, and line numbers do not count it.
    """

    columns: tuple[str, ...]
    delimiter: str = ","
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    header: bool = False
    quoted: bool = False
    escape: str | None = None
    final_newline: bool = True
    line_end: Literal["\n", "\r\n"] = "\n"


def read_text(
    stream: IO[bytes], file: str, layout: TextFormat, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[RawChunk]:
    """Chunks of string columns; memory is bounded by a few blocks of `block_bytes`.

    Raises:
        DataError: the file is empty or no text in lines of its encoding, its header lacks a
            column, or a line is longer than two blocks.
    """
    names = layout.columns
    line = 1
    for block, torn in _blocks(stream, file, block_bytes, layout.line_end.encode()):
        size = len(block)
        if line == 1:
            block = _begin(block, torn, file, layout)
        lines, undecodable = _lines(block, layout.encoding, layout.line_end)
        numbers = np.arange(line, line + len(lines))
        bad = [BadRow(line + at, "", f"is not {layout.encoding}", raw) for at, raw in undecodable]
        keep = np.asarray(pc.not_equal(lines, ""))
        if line == 1 and layout.header:
            place = int(keep.argmax())  # blank lines may stand before it
            names = _header(lines[place].as_py(), file, layout)
            keep[place] = False
        keep[[at for at, _ in undecodable]] = False
        for mask, reason in _broken(lines, block, layout):
            at_fault = np.flatnonzero(mask & keep)
            bad += [BadRow(line + int(at), "", reason, lines[at].as_py()) for at in at_fault]
            keep[at_fault] = False
        if torn and layout.final_newline and keep[-1]:
            bad.append(BadRow(int(numbers[-1]), "", _TORN, lines[-1].as_py()))
            keep[-1] = False
        line += len(lines)
        if not keep.all():
            lines, numbers = lines.filter(pa.array(keep)), numbers[keep]
        fields, unquotable = _fields(lines, layout)
        counts = np.asarray(pc.list_value_length(fields))
        wrong = counts != len(names)
        for at in np.flatnonzero(wrong):
            reason = f"{counts[at]} columns instead of {len(names)}"
            reason = unquotable.get(int(at), reason)
            bad.append(BadRow(int(numbers[at]), "", reason, lines[at].as_py()))
        if wrong.any():
            fields, numbers = fields.filter(pa.array(~wrong)), numbers[~wrong]
        columns = [pc.list_element(fields, place) for place in range(len(names))]
        table = pa.table(columns, names=list(names))
        yield RawChunk(table, file, numbers, sorted(bad, key=lambda b: b.line), size)


def _blocks(
    stream: IO[bytes], file: str, block_bytes: int, end: bytes
) -> Iterator[tuple[bytes, bool]]:
    """Blocks of whole lines, and whether the last of them lacks its newline."""
    rest, empty = b"", True
    while piece := stream.read(block_bytes):
        empty = False
        whole = rest + piece
        cut = whole.rfind(end, max(0, len(rest) - 1))  # an end may lie across two pieces
        if cut >= 0:
            yield whole[:cut], False
            rest = whole[cut + len(end) :]
        else:
            rest = whole
            if len(rest) > 2 * block_bytes:
                raise DataError(f"{file}: no line ends within {len(rest):,} bytes: is it text?")
    if empty:
        raise DataError(f"{file}: the file is empty")
    if rest:
        yield rest, True


def _begin(block: bytes, torn: bool, file: str, layout: TextFormat) -> bytes:
    """The first block without the mark of its encoding.

    Raises DataError where the file's beginning shows that all of it is no such text.
    """
    end = layout.line_end.encode()
    first = block.split(end, 1)[0]
    if block.startswith(_MARKS) or (layout.header and b"\0" in first):
        raise DataError(
            f"{file} is not {layout.encoding}: it begins as UTF-16 does, or with NUL bytes: save "
            f"it as {layout.encoding}"
        )
    if torn and end not in block and b"\r" in block.strip(b"\r"):
        raise DataError(
            f"{file}: its lines end with a carriage return alone, as on old Macintoshs: let them "
            f"end with {layout.line_end!r}"
        )
    return block.removeprefix(b"\xef\xbb\xbf") if layout.encoding == "utf-8" else block


def _broken(lines: pa.Array, block: bytes, layout: TextFormat) -> Iterator[tuple[np.ndarray, str]]:
    """Masks [lines] of those that no value of the format can hold, and why."""
    if b"\0" in block:
        yield np.asarray(pc.match_substring(lines, "\0")), _NUL
    if len(block) > LONGEST_LINE:
        yield np.asarray(pc.greater(pc.binary_length(lines), LONGEST_LINE)), _LONG
    if b"\r" in block:
        inside = pc.match_substring(lines, "\r")
        if layout.quoted:  # a value in quotes may hold one
            inside = pc.and_not(inside, pc.match_substring(lines, '"'))
        yield np.asarray(inside), _RETURN


def _lines(block: bytes, encoding: str, end: str) -> tuple[pa.Array, list[tuple[int, str]]]:
    """The lines of a block without their ends, and which of them do not decode."""
    undecodable = []
    try:
        text = block.decode(encoding)
    except UnicodeDecodeError:
        text = block.decode(encoding, "replace")
        raws = block.split(end.encode())
        for at, shown in enumerate(text.split(end)):
            if "\ufffd" in shown:  # the replacement mark, which the file itself may hold as well
                try:
                    raws[at].decode(encoding)
                except UnicodeDecodeError:
                    undecodable.append((at, raws[at].decode(encoding, "backslashreplace")))
    lines = pc.split_pattern(pa.array([text]), end).flatten()
    return (pc.utf8_rtrim(lines, "\r") if "\r" in text else lines), undecodable


def _header(line: str, file: str, layout: TextFormat) -> tuple[str, ...]:
    if layout.quoted:
        try:
            row = next(csv.reader([line], delimiter=layout.delimiter), [])
        except csv.Error as error:
            raise DataError(f"{file}: its header cannot be read: {error}") from None
        names = [name.strip() for name in row]
    else:
        names = [name.strip() for name in line.split(layout.delimiter)]
    missing = [name for name in layout.columns if name not in names]
    if missing:
        raise DataError(f"{file}:1: no column {missing[0]!r} in the header: {', '.join(names)}")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"{file}:1: the header names {repeated[0]!r} more than once")
    return tuple(names)


def _fields(lines: pa.Array, layout: TextFormat) -> tuple[pa.Array, dict[int, str]]:
    """The values of each line, and the lines whose quotes cannot be read (no values) with why."""
    if not layout.quoted:
        return pc.split_pattern(lines, layout.delimiter), {}
    has_quote = np.asarray(pc.match_substring(lines, '"'))
    if not has_quote.any():
        return pc.split_pattern(lines, layout.delimiter), {}
    quoted = np.flatnonzero(has_quote)
    rows, broken = _quoted_rows(lines.take(pa.array(quoted)).to_pylist(), layout)
    plain = np.flatnonzero(~has_quote)
    parts = [
        pc.split_pattern(lines.take(pa.array(plain)), layout.delimiter),
        pa.array(rows, pa.list_(pa.string())),
    ]
    order = np.argsort(np.concatenate([plain, quoted]))
    fields = pa.concat_arrays([part.cast(pa.list_(pa.string())) for part in parts])
    return fields.take(pa.array(order)), {int(quoted[at]): why for at, why in broken.items()}


def _quoted_rows(lines: list[str], layout: TextFormat) -> tuple[list[list[str]], dict[int, str]]:
    """Each line through one csv reader, which is begun anew behind a line that breaks it."""
    rows: list[list[str]] = []
    broken: dict[int, str] = {}
    while len(rows) < len(lines):
        start = len(rows)
        reader = csv.reader(
            (lines[at] for at in range(start, len(lines))),
            delimiter=layout.delimiter,
            escapechar=layout.escape,
            strict=True,
        )
        why = "a quote is not closed on its line"
        try:
            for row in reader:
                if reader.line_num != len(rows) - start + 1:
                    break  # it ran on into the next line
                rows.append(row)
            else:
                break
        except csv.Error as error:
            if reader.line_num == len(rows) - start + 1 and "end of data" not in str(error):
                why = f"broken quotes ({error})"
        broken[len(rows)] = why
        rows.append([])
    return rows, broken
