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
) -> None:
    """Raw input to event log: validated, nothing dropped silently.

    Reads the config's section `data`; the log lies where `store` says.
    """
    from pipelines.ingest import describe, ingest_source

    loaded = load(config, overrides)
    report = ingest_source(
        loaded.data,
        loaded.store_folder,
        quarantine=quarantine or loaded.quarantine,
        replace=replace,
        engine=loaded.engine,
    )
    typer.echo(f"{loaded.store_folder}: {describe(report)}")
