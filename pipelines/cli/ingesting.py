"""The verb that reads raw data."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.arguments import Config, Overrides, load


def ingest(
    config: Config,
    overrides: Overrides = None,
    quarantine: Annotated[
        bool,
        typer.Option("--quarantine", help="Set bad rows aside in quarantine.parquet and go on."),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a log made from other input.")
    ] = False,
    append: Annotated[
        bool,
        typer.Option(
            "--append", help="Add to the log at `store`: events that it holds are left out."
        ),
    ] = False,
) -> None:
    """Raw input to event log: validated, nothing dropped silently.

    Reads the config's section `data`; the log lies where `store` says.

    A day that came joins the log as a file of its own, late events too, and nothing that is there
    is written again:

    recsys ingest CONFIG store=/data/log data.path=/data/in/2024-06-01.parquet --append
    """
    loaded = load(config, overrides)
    from feature_store.errors import ConfigError
    from pipelines.ingest import append_source, describe, describe_append, ingest_source

    if append:
        if replace:
            raise ConfigError("--append adds to a log and --replace replaces it: choose one")
        if loaded.store is None:
            raise ConfigError(
                "--append needs to know which log: add store=FOLDER, as it was ingested to"
            )
        done = append_source(
            loaded.data,
            loaded.store,
            quarantine=quarantine or loaded.quarantine,
            engine=loaded.engine,
        )
        typer.echo(f"{loaded.store}: {describe_append(done)}")
        return
    report = ingest_source(
        loaded.data,
        loaded.store_folder,
        quarantine=quarantine or loaded.quarantine,
        replace=replace,
        engine=loaded.engine,
    )
    typer.echo(f"{loaded.store_folder}: {describe(report)}")
