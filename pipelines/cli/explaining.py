"""The verb that says why an item is in a list, or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.answers import Format, print_answers, write_answers
from pipelines.cli.arguments import Out, Signed, bundle_in


def explain(
    folder: Annotated[Path, typer.Argument(help="The folder of a cascade's run, or its bundle.")],
    user: Annotated[str, typer.Option("--user", "-u", help="A known user.")],
    item: Annotated[str, typer.Option("--item", "-i", help="An item.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Length of the list.")] = 10,
    form: Format = None,
    require_signature: Signed = None,
    out: Out = None,
) -> None:
    """Which generator of a cascade found an item, what each stage thought of it, where it was lost.

    Example: recsys explain runs/synthetic_cascade --user 7 --item 42
    """
    from pipelines.cli.bundles import warn_of_other_weights
    from recsys.serving.explaining import explain_item, fate
    from recsys.serving.recommender import Recommender

    recommender = Recommender.open(bundle_in(folder), signed_by=require_signature)
    warn_of_other_weights(folder, recommender.finder.record.about)
    opinions = explain_item(recommender, user, item, k)
    if out is not None:
        write_answers(opinions, out)
    else:
        print_answers(opinions, form, f"item {item} for user {user}")
    typer.echo(f"item {item} for user {user}: {fate(opinions, k)}", err=True)
