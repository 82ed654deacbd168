"""What verbs that ask a bundle may know of users besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from recsys.serving.users import KnownUsers

Users = Annotated[
    str | None,
    typer.Option(
        "--users",
        help="A store of users' newest histories, such as sqlite:///users.db, in place of what "
        "the bundle knows of them.",
    ),
]

Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="Refuse unknown users and histories, which else get the fallback."
    ),
]


def kept(store: str | None) -> KnownUsers | None:
    """Those of a store, if one is named."""
    from recsys.online.places import open_users

    return None if store is None else open_users(store)
