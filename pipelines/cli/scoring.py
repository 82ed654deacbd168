"""The verb that asks a bundle for probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.cli.answers import Format, print_answers, write_answers
from pipelines.cli.arguments import Out, Signed
from pipelines.cli.bundles import bundle_in, warn_of_other_weights
from pipelines.cli.known_users import Users, kept


def score(
    folder: Annotated[Path, typer.Argument(help="The folder of a ranker's run, or of its bundle.")],
    requests: Annotated[
        Path, typer.Option(help="Parquet with item ids, and whatever else the ranker reads.")
    ],
    task: Annotated[
        str | None, typer.Option(help="Which of the ranker's tasks; by default the first.")
    ] = None,
    expect: Annotated[
        Literal["revenue", "profit"] | None,
        typer.Option(
            help="Add what a row is expected to bring: its probability times its price, "
            "or that less its cost."
        ),
    ] = None,
    store: Users = None,
    form: Format = None,
    require_signature: Signed = None,
    out: Out = None,
) -> None:
    """Ask a ranker's bundle how likely each row is; needs torch, but neither torchrec nor fbgemm.

    Example: recsys score runs/movielens_1m_dcn --requests pairs.parquet --out scored.parquet
    """
    from pipelines.cli.printing import read_requests
    from recsys.serving.scorer import Scorer

    scorer = Scorer.open(bundle_in(folder), users=kept(store), signed_by=require_signature)
    warn_of_other_weights(folder, scorer.record.about)
    scored = scorer.score_table(read_requests(requests), task or scorer.tasks[0], expect)
    if out is not None:
        write_answers(scored, out)
    else:
        print_answers(scored, form)
