"""Verbs that ask a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.arguments import Out, finite


def recommend(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, or of a bundle.")],
    user: Annotated[
        list[str] | None, typer.Option("--user", "-u", help="A known user; may be repeated.")
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(help="Parquet with a `history` column of item ids, and user features."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Items per user.")] = 10,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Items of the history may come again.")
    ] = False,
    diversity: Annotated[
        float,
        typer.Option(callback=finite, help="Score that a pair of different categories is worth."),
    ] = 0.0,
    category: Annotated[
        str | None, typer.Option(help="Column of the catalogue that diversity looks at.")
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Refuse unknown users and histories, which else get the fallback."
        ),
    ] = False,
    out: Out = None,
) -> None:
    """Ask a bundle; needs torch, but neither torchrec nor fbgemm.

    Example: recsys recommend runs/synthetic_quickstart --user 7 --user 42 -k 5
    """
    from pipelines.cli.printing import print_frame, read_requests, write_frame
    from recsys.serving.recommender import Recommender

    recommender = Recommender.open(_bundle(folder))
    asked = None if requests is None else read_requests(requests)
    answers = recommender.recommend(
        user or None,
        requests=asked,
        k=k,
        exclude_seen=not include_seen,
        diversity=diversity,
        category=category,
        strict=strict,
    )
    if users := answers.loc[answers["fallback"], "user"].nunique(dropna=False):
        typer.echo(
            f"recsys: {users} of those asked for have no known history: they get the "
            "bundle's fallback, popular items; --strict refuses",
            err=True,
        )
    if out is not None:
        write_frame(answers, out)
    else:
        print_frame(answers if users else answers.drop(columns="fallback"))


def score(
    folder: Annotated[Path, typer.Argument(help="The folder of a ranker's run, or of its bundle.")],
    requests: Annotated[
        Path, typer.Option(help="Parquet with item ids, and whatever else the ranker reads.")
    ],
    out: Out = None,
) -> None:
    """Ask a ranker's bundle how likely each row is; needs torch, but neither torchrec nor fbgemm.

    Example: recsys score runs/movielens_1m_dcn --requests pairs.parquet --out scored.parquet
    """
    from pipelines.cli.printing import print_frame, read_requests, write_frame
    from recsys.serving.scorer import Scorer

    scored = Scorer.open(_bundle(folder)).score(read_requests(requests))
    if out is not None:
        write_frame(scored, out)
    else:
        print_frame(scored)


def _bundle(folder: Path) -> Path:
    """That of a run, or the folder itself."""
    from recsys.runs.folder import RunFolder

    bundle = RunFolder(folder).bundle
    return bundle if bundle.exists() else folder
