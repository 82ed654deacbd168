"""The verbs that say whether a new model may answer from the index in service, and re-embed it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def compatibility(
    old: Annotated[Path, typer.Argument(help="What is in service: a bundle, or its run.")],
    new: Annotated[
        Path, typer.Argument(help="The run that is to follow it, whose test requests are asked.")
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="Places of the lists that are judged.")] = 10,
    p: Annotated[
        float,
        typer.Option(help="Of the overlap: how likely someone is to look at the next place."),
    ] = 0.9,
    requests: Annotated[
        int | None, typer.Option(min=1, help="Only so many requests; by default all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Old and new queries against old and new items: may the new model answer from the old index?

    Ends with go, or with no-go and why; status 0 either way.

    Example: recsys bundle compatibility runs/movielens_1m_before runs/movielens_1m_upgrade
    """
    from pipelines.compatibility_table import compatibility_tables, verdict
    from pipelines.printer import print_whole
    from recsys.runs.compatibility import compatibility as job

    outcome = job(old, new, k=k, persistence=p, requests=requests)
    if as_json:
        typer.echo(json.dumps(outcome.to_dict(), indent=2, allow_nan=False))
        return
    for table in compatibility_tables(outcome):
        print_whole(table)
    for note in outcome.notes:
        typer.echo(f"note: {note}")
    typer.echo(verdict(outcome))


def reembed(
    run: Annotated[Path, typer.Argument(help="The run that follows what is in service.")],
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Of the items: these get their new vectors.")
    ],
    out: Annotated[Path, typer.Option(help="A folder for the bundle, which is not there yet.")],
) -> None:
    """Write a bundle over an index on its way: a share of the items re-embedded, the others as they
    lie, their scores brought to those of the new ones.

    Who is re-embedded stays so with a larger share. `recsys bundle compatibility` tells the recall
    of 25, 50 and 75 %; `recsys bundle delta` sends what differs from one step to the next.

    Example: recsys bundle reembed runs/movielens_1m_upgrade --share 0.25 --out quarter
    """
    from recsys.runs.parts import part_config
    from recsys.runs.underway import write_underway

    bundle = write_underway(part_config("RUN", run), share, out)
    typer.echo(f"verified: {bundle.folder}, {share:.0%} of the items re-embedded")
