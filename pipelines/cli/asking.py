"""The verb that asks a bundle for items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.answers import Format, print_answers, write_answers
from pipelines.cli.arguments import Out, Signed, finite
from pipelines.cli.bundles import bundle_in, warn_of_other_weights
from pipelines.cli.filtering import Allow, Forbid, Where, ids_in
from pipelines.cli.known_users import Strict, Users, kept
from pipelines.cli.measuring import MeasureIndex
from pipelines.cli.row_by_row import answered, told


def recommend(
    folder: Annotated[Path, typer.Argument(help="The folder of a run, or of a bundle.")],
    user: Annotated[
        list[str] | None, typer.Option("--user", "-u", help="A known user; may be repeated.")
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(
            help="Parquet, or *.jsonl, with a `history` of item ids a row, and user features."
        ),
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
    strict: Strict = False,
    where: Where = None,
    allow: Allow = None,
    forbid: Forbid = None,
    store: Users = None,
    form: Format = None,
    measure_index: MeasureIndex = True,
    require_signature: Signed = None,
    out: Out = None,
) -> None:
    """Ask a bundle; needs torch, but neither torchrec nor fbgemm.

    Example: recsys recommend runs/synthetic_quickstart --user 7 --user 42 -k 5
    """
    from feature_store.errors import DataError
    from recsys.serving.recommender import Recommender

    if bool(user) == (requests is not None):
        raise DataError("give either users or requests: --user or --requests")
    recommender = Recommender.open(
        bundle_in(folder),
        users=kept(store),
        signed_by=require_signature,
        measure_index=measure_index,
    )
    warn_of_other_weights(folder, recommender.finder.record.about)
    options = {
        "k": k,
        "exclude_seen": not include_seen,
        "diversity": diversity,
        "category": category,
        "strict": strict,
        "where": where,
        "allowed": ids_in(allow, recommender.bundle.schema.item),
        "forbidden": ids_in(forbid, recommender.bundle.schema.item),
    }
    problems: list[str | None] = []
    if requests is not None:
        answers, problems = answered(recommender, requests, options)
    else:
        known = recommender.requests_of(user, strict=strict)
        answers = recommender.recommend_table(known, **options)
    if not answers.num_rows:
        typer.echo("recsys: no item is left to answer with", err=True)
    asked = answers.filter(answers["fallback"]).column(0)
    if users := len(asked.unique()):
        typer.echo(
            f"recsys: {users} of those asked for have no known history: they get the "
            "bundle's fallback, popular items; --strict refuses",
            err=True,
        )
    if out is not None:
        write_answers(answers, out)
    else:
        print_answers(answers if users else answers.drop_columns(["fallback"]), form)
    if any(problems) and requests is not None:
        raise DataError(told(requests, problems))
