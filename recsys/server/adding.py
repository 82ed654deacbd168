"""Events as they come -> the store of users' newest histories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from feature_store.errors import DataError
from recsys.server.errors import Refused
from recsys.server.live import Live
from recsys.server.models import Added, Events
from recsys.server.showing import Showing
from recsys.serving.requests import by_names_of_log
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
    names = dict.fromkeys(name for event in asked.events for name in event)
    columns = {name: _column(name, [event.get(name) for event in asked.events]) for name in names}
    table = by_names_of_log(pa.table(columns), live.bundle.schema)
    new = table.num_rows if store is None else store.append(table)
    if showing is not None:
        showing.add(table, live.bundle.schema)
    return {"received": len(asked.events), "new": new}


def _column(name: str, values: Sequence[Any]) -> pa.Array:
    """Values of one type; of several as texts, which a log reads as well."""
    if len({type(value) for value in values if value is not None}) > 1:
        values = [None if value is None else str(value) for value in values]
    try:
        return pa.array(values)
    except OverflowError:
        return pa.array([None if value is None else str(value) for value in values])
    except pa.ArrowException as error:
        raise DataError(f"events: column {name!r} cannot be read: {error}") from None
