"""`recsys online ...`: stores of users' newest histories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.answers import Format, print_answers
from pipelines.cli.arguments import finite

online = typer.Typer(no_args_is_help=True, help="Keep users' newest histories for serving.")

Store = Annotated[
    str,
    typer.Argument(help="sqlite:///users.db, redis://host:6379/0?prefix=recsys, unix:///socket."),
]


@online.command()
def sync(
    source: Annotated[Path, typer.Argument(help="The folder of a run, or of an event log.")],
    store: Store,
    keep: Annotated[
        int | None,
        typer.Option(min=1, help="Events of each list to keep of a user, the newest; 1000."),
    ] = None,
    days: Annotated[
        float | None, typer.Option(callback=finite, help="Forget events that are older by now.")
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Read the log from its beginning, as after a loss.")
    ] = False,
) -> None:
    """Bring the events of a log to a store: all of them, or what came since the last time.

    Of a run, the store keeps the lists and the event types that its model reads.

    Example: recsys online sync runs/synthetic_quickstart sqlite:///users.db
    """
    from pipelines.online import describe, sync_store

    typer.echo(describe(*sync_store(source, store, keep=keep, days=days, anew=anew)))


@online.command()
def show(
    store: Annotated[
        str, typer.Argument(help="The URL of a store, or the folder of a run or a bundle.")
    ],
    user: Annotated[
        list[str] | None, typer.Option("--user", "-u", help="A known user; may be repeated.")
    ] = None,
    form: Format = None,
) -> None:
    """What a store knows of users, an event a row; without users, what it holds.

    Example: recsys online show sqlite:///users.db --user 7
    """
    from pipelines.online_table import about, events_of, features_of
    from pipelines.printer import say
    from recsys.online.places import open_users

    users = open_users(store)
    if user:
        print_answers(events_of(users, user), form)
        say("\n".join(features_of(users, user)), stderr=True)
    else:
        say(about(users, store))


@online.command()
def forget(
    store: Store,
    user: Annotated[list[str], typer.Option("--user", "-u", help="A user; may be repeated.")],
) -> None:
    """Remove all that a store knows of users, as people may ask for.

    Example: recsys online forget sqlite:///users.db --user 7
    """
    from recsys.online.places import open_store
    from recsys.serving.requests import ids_of

    gone = open_store(store).forget(ids_of(user))
    typer.echo(f"{gone} of {len(set(user))} users were there, and are forgotten")
