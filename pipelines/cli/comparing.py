"""The verb that holds runs against each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.cli.arguments import in_a_folder


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Folders of evaluated runs, all of retrievers or all of rankers; RUN:NAME for a "
            "baseline in one, or a task."
        ),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", "-m", help="NDCG@10, or NDCG at every cut-off; may be repeated."),
    ] = None,
    test: Annotated[
        Literal["randomisation", "bootstrap"], typer.Option(help="Paired test of the p-values.")
    ] = "randomisation",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            callback=in_a_folder, help="Write an HTML report of the runs side by side, too."
        ),
    ] = None,
) -> None:
    """Runs side by side: differences from the first, intervals and paired p-values.

    Refuses runs of different protocols, and says what differs.

    Examples:

    recsys compare runs/sasrec runs/two_tower runs/sasrec:popularity -m NDCG@10 -m Recall

    recsys compare runs/pooling runs/din -m AUC -m GAUC
    """
    from pipelines.compare import comparison_table
    from pipelines.printer import print_whole, say
    from recsys.report.comparison import compare as job

    comparison = job(runs, metric or (), test=test)
    if out is not None:
        from recsys.report.report import write_comparison

        write_comparison(comparison, out)
    if as_json:
        typer.echo(json.dumps(comparison.to_dict(), indent=2, allow_nan=False))
        return
    print_whole(comparison_table(comparison))
    for note in comparison.notes:
        say(f"note: {note}")
    if out is not None:
        typer.echo(f"report: {out}")
