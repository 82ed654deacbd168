"""New items into a bundle in service: as a delta, which other servers can be sent."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from feature_store.durable import staging
from feature_store.errors import DataError
from feature_store.leftovers import scratch
from recsys.serving.additions.add import add_items
from recsys.serving.bundle import Bundle
from recsys.serving.delta.apply import apply_delta
from recsys.serving.delta.make import make_delta
from recsys.serving.releases import KEEP, Releases
from recsys.serving.signature import SIGNATURE


class Published(NamedTuple):
    """How many items were new, and the version that finds all of them, which is in service."""

    added: int
    version: str


def publish_items(
    releases: Releases,
    items: pa.Table,
    *,
    out: Path | None = None,
    key: Path | None = None,
    keep: int = KEEP,
) -> Published:
    """Add items to the bundle in service, see `add_items`, and put the new one in service, as a
    delta that is applied and verified; `out` keeps the delta. A bundle that is signed needs the
    private `key` again.

    Raises DataError as `add_items` and `apply_delta`, and where a signed bundle would no longer be.
    """
    base = releases.path(releases.must_serve())
    if (base / SIGNATURE).exists() and key is None:
        raise DataError(f"{base} is signed, and with new items it has to be again: give --key")
    with staging(releases.folder / "items") as new, scratch("items") as folder:
        added = add_items(base, items, new)
        if not added:
            return Published(0, base.name)
        if key is not None:
            Bundle.open(new).sign(key)
        delta = folder / "items.zip" if out is None else out
        make_delta(base, new, delta)
        return Published(added, apply_delta(delta, releases, keep=keep))
