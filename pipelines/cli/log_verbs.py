"""`recsys log ...`: what people do with event logs besides ingesting them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

log = typer.Typer(no_args_is_help=True, help="Keep event logs in shape.")


@log.command("compact")
def compact(
    folder: Annotated[Path, typer.Argument(help="The folder of an event log: a store.")],
    rows: Annotated[
        int, typer.Option(min=1, help="Events of a file, which are in memory at once.")
    ] = 1 << 20,
) -> None:
    """Join small files of an event log; its events, their order and its fingerprint stay.

    Example: recsys log compact runs/store/parquet-1a2b3c4d
    """
    from feature_store.compaction import compact as join
    from feature_store.event_log import EventLog

    before, after = join(EventLog.open(folder), rows)
    typer.echo(f"{folder}: {before:,} files are {after:,} now")
