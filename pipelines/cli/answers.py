"""Answers as files: whole, with every digit."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any


def write_answers(rows: Any, path: Path) -> None:
    """A table as Parquet, CSV or TSV, whichever the file's name says; it appears whole."""
    from feature_store.durable import write_parquet, write_text
    from feature_store.sources.text_file import DELIMITERS

    if path.suffix in DELIMITERS:
        write_text(as_csv(rows, DELIMITERS[path.suffix]), path)
    else:
        write_parquet(rows, path)


def as_csv(rows: Any, delimiter: str = ",") -> str:
    """A table with a header; lists are JSON, what is missing is empty."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(rows.column_names)
    columns = [[_plain(value) for value in column.to_pylist()] for column in rows.columns]
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


def _plain(value: Any) -> Any:
    return json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, list) else value
