"""The verb that measures at several origins."""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.cli.arguments import Config, Overrides, load


def rolling(
    config: Config,
    overrides: Overrides = None,
    origins: Annotated[
        int, typer.Option(min=1, help="Test windows, each right before the next.")
    ] = 4,
) -> None:
    """Train and measure before each of several test windows, and tell mean and spread.

    One window is one draw of what may happen. The newest is the config's own split, global_time
    with test_days; each of the others ends where the next begins, and nothing later is known
    there. Leaves runs NAME-back1, NAME-back2, ... and rolling.json in the run's folder; origins
    that are done are not done again.

    Example: recsys rolling CONFIG --origins 4 split.test_days=1 split.validation_days=1
    """
    from pipelines.printer import print_whole
    from pipelines.rolling import rolling as job
    from pipelines.rolling_table import rolling_table
    from recsys.runs.folder import RunFolder

    loaded = load(config, overrides)
    print_whole(rolling_table(job(loaded, origins)))
    typer.echo(f"all figures: {RunFolder(loaded.folder).path / 'rolling.json'}")
