"""The verb that searches for options."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

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

    Which model suits the log: let several race for the best validation figure
    within a budget of minutes. Leaves race.json and chosen.toml:

    recsys tune CONFIG 'tune.retrievers=["item_knn", "ease", "sasrec"]' tune.timeout=20
    """
    asked = load(config, overrides if retriever is None else None)
    from feature_store.errors import ConfigError
    from pipelines.printer import print_whole
    from pipelines.tune import tune as job
    from pipelines.tuning_table import baseline_snippet, trials_table
    from recsys.runs.folder import RunFolder
    from recsys.runs.search_space import for_retriever

    if asked.tune.retrievers:
        if retriever is not None:
            raise ConfigError("give either --retriever or tune.retrievers")
        _race(asked, resume=resume, replace=replace)
        return
    if retriever is None:
        loaded, files = asked, RunFolder(asked.folder)
    else:
        loaded, files = for_retriever(asked, retriever, overrides)
    record = job(loaded, files, resume=resume, replace=replace)
    print_whole(trials_table(record))
    if retriever is not None and (snippet := baseline_snippet(record)):
        typer.echo(snippet)
    typer.echo(f"tuned: {files.tuned_config}")


def _race(config: Any, *, resume: bool, replace: bool) -> None:
    """Which retriever suits the log."""
    from feature_store.errors import ConfigError
    from pipelines.printer import printer
    from pipelines.race import race_retrievers
    from pipelines.race_table import race_table
    from recsys.runs.folder import RunFolder
    from recsys.runs.race_record import race_sentence

    if resume:
        raise ConfigError("a race cannot go on where it stopped: begin anew with --replace")
    record = race_retrievers(config, replace=replace)
    printer().print(race_table(record))
    typer.echo(race_sentence(record))
    chosen = shlex.quote(str(RunFolder(config.folder).chosen_config))
    typer.echo(f"its test figures and its bundle: recsys run {chosen}")
