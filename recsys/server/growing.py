"""New items as they come -> the next version of the bundle in service."""

from __future__ import annotations

from pathlib import Path

from recsys.server.columns import as_table
from recsys.server.errors import Refused
from recsys.server.live import Live
from recsys.server.models import Grown, Items
from recsys.serving.additions.publish import publish_items
from recsys.serving.releases import releases_in


def grow(folder: Path | None, live: Live, asked: Items) -> Grown:
    """Publish a bundle that finds the items, in the serving folder or run at `folder`; those that
    are found already are passed over.

    Raises Refused (404) where the server takes none, and DataError naming what does not fit; then
    none is added.
    """
    if folder is None:
        raise Refused(404, "this server takes no items: start it with --accept-items")
    table = as_table(asked.items, live.bundle.schema, "items")
    published = publish_items(releases_in(folder), table)
    return {"received": len(asked.items), "new": published.added, "version": published.version}
