"""Events as they come -> the store of users' newest histories."""

from __future__ import annotations

from recsys.server.columns import as_table
from recsys.server.errors import Refused
from recsys.server.live import Live
from recsys.server.models import Added, Events
from recsys.server.showing import Showing
from recsys.serving.users import KnownUsers


def add(store: KnownUsers | None, showing: Showing | None, live: Live, asked: Events) -> Added:
    """Add all events of a call or, where one does not fit, none. One that is known already, by what
    the log calls unique, is not added again.

    Where exposures are written down, clicks and purchases are, too, as often as they come.

    Raises Refused (404) where the server has neither store nor such a log, and DataError naming the
    event that does not fit.
    """
    if store is None and showing is None:
        raise Refused(404, "this server keeps no events: start it with --users or --exposures")
    table = as_table(asked.events, live.bundle.schema, "events")
    new = table.num_rows if store is None else store.append(table)
    if showing is not None:
        showing.add(table, live.bundle.schema)
    return {"received": len(asked.events), "new": new}
