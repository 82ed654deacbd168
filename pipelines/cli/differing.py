"""The verb that says what differs between bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.answers import Format, print_answers
from pipelines.cli.bundles import bundle_in


def diff(
    old: Annotated[Path, typer.Argument(help="A bundle, or the folder of a run or of versions.")],
    new: Annotated[Path, typer.Argument(help="Another one.")],
    form: Format = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, by part and by what differs.")
    ] = False,
) -> None:
    """What differs: parts, spaces, items, users, ids, figures, and what both answer.

    Example: recsys bundle diff runs/may runs/june
    """
    import pyarrow as pa

    from recsys.serving.bundle import Bundle
    from recsys.serving.difference import differences

    bundles = [Bundle.open(bundle_in(folder)) for folder in (old, new)]
    rows = differences(*bundles)
    if as_json:
        tree: dict[str, dict[str, object]] = {}
        for row in rows:
            told = {"old": row.old, "new": row.new, "how": row.how}
            tree.setdefault(row.part or "bundle", {})[row.what] = told
        typer.echo(json.dumps(tree))
        return
    table = [{name: _shown(value) for name, value in row._asdict().items()} for row in rows]
    names = ("part", "what", "old", "new", "how")
    columns = [pa.array([row[name] for row in table], pa.string()) for name in names]
    print_answers(pa.table(columns, names=names), form)


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
