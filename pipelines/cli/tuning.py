"""The verb that searches for options."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.arguments import Config, Overrides, load


def tune(
    config: Config,
    overrides: Overrides = None,
    retriever: Annotated[
        str | None,
        typer.Option(help="Tune this one over the config's data and split, from its defaults."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a search after a stop or kill.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Begin anew, over a search that is there.")
    ] = False,
) -> None:
    """Search for a retriever's best options, judged on validation alone.

    Searches as the section tune of the config says. Without tune.space in it
    the retriever's own search space is used. Options are given by low and high
    (log = true: even over orders of magnitude), or by choices:

    recsys tune CONFIG 'tune.space.retriever.dropout={low=0.0, high=0.5}'

    Writes tuning.json, tuned.toml (for `recsys run`) and plots/tuning.png into
    the run's folder; with --retriever into tuning/RETRIEVER below it, and prints
    the best as a baseline.

    More trials: recsys tune CONFIG tune.trials=60 --resume
    """
    from pipelines.printer import printer
    from pipelines.tune import tune as job
    from pipelines.tuning_table import baseline_snippet, trials_table
    from recsys.runs.folder import RunFolder
    from recsys.runs.search_space import for_retriever

    if retriever is None:
        loaded = load(config, overrides)
        files = RunFolder(loaded.folder)
    else:
        loaded, files = for_retriever(load(config, None), retriever, overrides)
    record = job(loaded, files, resume=resume, replace=replace)
    printer().print(trials_table(record))
    if retriever is not None and (snippet := baseline_snippet(record)):
        typer.echo(snippet)
    typer.echo(f"tuned: {files.tuned_config}")
