"""The verb that takes days in, one after the other."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from pipelines.cli.arguments import Config, Overrides, load

HELD_BACK = 3
"""The status where nothing was published."""


def daily(
    config: Config,
    overrides: Overrides = None,
    day: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The day that is the test; by default the newest."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Publish also what the gate holds back.")
    ] = False,
) -> None:
    """Take a day in: append it, learn what was before it, measure on it, publish if that is well.

    The first time all that there is makes the log, a model, and the bundle in service. From then on
    every call appends the events that came, trains the run in service further on the days before
    the newest, with tables grown by what is new, and asks the new model and the bundle in service
    the same requests of the newest day. If the metric surely falls by no more than daily.max_fall,
    the new bundle is published as a delta; else nothing is, it says why, and the status is 3.

    Whatever stops it, the same call goes on. All of it lies in the run's folder: the log in
    store, a run a day in days, bundles in service, what came of each day in days.json and
    days.html.

    Examples:

    recsys daily pipelines/configs/daily.toml data.last_day=46            # all until then

    recsys daily pipelines/configs/daily.toml data.first_day=47 data.last_day=47

    recsys daily shop.toml data.path=/data/in/2024-06-01.parquet          # from cron, say
    """
    from pipelines.daily import daily as job
    from pipelines.printer import say
    from recsys.runs.days import HELD, Days

    loaded = load(config, overrides)
    told = job(loaded, day=None if day is None else day.date(), force=force)
    days = Days(loaded)
    say(f"{told['day']}: {told['state']}: {told['reason']}")
    typer.echo(f"in service: {days.releases.folder}; all days: {days.page}")
    if told["state"] == HELD:
        raise typer.Exit(HELD_BACK)
