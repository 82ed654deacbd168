"""Requests of which some cannot be read: the others are answered, and the bad ones named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_NAMED = 5  # rows with their reasons


def answered(recommender: Any, path: Path, options: dict[str, Any]) -> tuple[Any, list[str | None]]:
    """The answers to a file of requests, Parquet or JSON lines, and why each of them could not be
    read, None where it could; of a file that is fine as a whole there are no reasons.

    Raises DataError where no request can be read.
    """
    from feature_store.errors import DataError
    from pipelines.cli.printing import read_requests
    from recsys.serving.row_answers import answer_rows

    if path.suffix == ".jsonl":
        answers, problems = answer_rows(recommender, lines_of(path), **options)
        if all(problems):
            raise DataError(told(path, problems))
        return answers, problems
    requests = read_requests(path)
    try:
        return recommender.recommend_table(requests, **options), []
    except DataError:
        if options["strict"] or not requests.num_rows:
            raise
        answers, problems = answer_rows(recommender, requests.to_pylist(), **options)
        if all(problems) or not any(problems):  # no fault of single rows
            raise
        return answers, problems


def told(path: Path, problems: list[str | None]) -> str:
    """Which rows could not be read, and why, in a line."""
    bad = [(row, problem) for row, problem in enumerate(problems) if problem is not None]
    rows = "; ".join(f"row {row} ({problem})" for row, problem in bad[:_NAMED])
    more = f"; and {len(bad) - _NAMED:,} more" if len(bad) > _NAMED else ""
    others = "" if len(bad) == len(problems) else ", and the others were answered"
    return f"{path}: {len(bad):,} of {len(problems):,} rows cannot be read{others}: {rows}{more}"


def lines_of(path: Path) -> list[Any]:
    """What the lines of a file say. Raises DataError where it cannot be read."""
    from feature_store.errors import DataError

    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    return [_parsed(line) for line in lines if line.strip()]


def _parsed(line: str) -> Any:
    """A row, or the text where it is no JSON, which is no row."""
    from feature_store.trees import json_tree

    try:
        return json_tree(line)
    except ValueError:
        return line
