"""Answers for people on a terminal, and whole, with every digit, for programs and in files."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Form = Literal["table", "csv", "jsonl"]
Format = Annotated[
    Form | None,
    typer.Option("--format", help="By default a table on a terminal, and csv elsewhere."),
]


_IDS = {"user", "item"}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_answers(rows: Any, path: Path) -> None:
    """A table as Parquet, CSV or TSV, whichever the file's name says; it appears whole."""
    from feature_store.durable import write_parquet, write_text
    from feature_store.sources.text_file import DELIMITERS

    if path.suffix in DELIMITERS:
        write_text("".join(csv_lines(rows, DELIMITERS[path.suffix])), path)
    else:
        write_parquet(rows, path)


def print_answers(rows: Any, form: Form | None = None, title: str | None = None) -> None:
    """A table on stdout; without a form what suits a terminal, or else a program."""
    form = form or ("table" if sys.stdout.isatty() else "csv")
    if form == "table":
        _print_table(rows, title)
    else:
        lines: Callable[[Any], Iterable[str]] = csv_lines if form == "csv" else _json_lines
        sys.stdout.writelines(lines(rows))


def csv_lines(rows: Any, delimiter: str = ",") -> Iterator[str]:
    """A table with a header; lists are JSON, what is missing is empty.

    A text that spreadsheets would take for a formula, such as a title that begins with `=`, has a
    `'` before it, by which they know a text. Ids stay as they are: programs read them again.
    """
    exact = [name in _IDS for name in rows.column_names]
    for values in [rows.column_names, *_rows_of(rows)]:
        line = io.StringIO()
        plain = (_plain(value, same) for value, same in zip(values, exact, strict=True))
        # the writer quotes whatever is in its line ends, and readers end lines at either sign
        csv.writer(line, delimiter=delimiter, lineterminator="\r\n").writerow(plain)
        yield line.getvalue().removesuffix("\r\n") + "\n"


def _json_lines(rows: Any) -> Iterator[str]:
    for values in _rows_of(rows):
        record = dict(zip(rows.column_names, values, strict=True))
        yield json.dumps(record, default=str, ensure_ascii=False) + "\n"


def _print_table(rows: Any, title: str | None) -> None:
    from rich.table import Table

    from pipelines.escaping import shown
    from pipelines.printer import printer

    table = Table(title=title)
    for name in rows.column_names:
        table.add_column(shown(name), overflow="fold")  # an id is never cut
    for values in _rows_of(rows):
        table.add_row(*(f"{v:.4f}" if isinstance(v, float) else shown(v) for v in values))
    printer().print(table)


def _rows_of(rows: Any) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in rows.columns), strict=True)


def _plain(value: Any, exact: bool) -> Any:
    if isinstance(value, list):
        return json.dumps(value, default=str, ensure_ascii=False)
    if isinstance(value, str) and value.startswith(_FORMULA) and not exact:
        return f"'{value}"
    return value
