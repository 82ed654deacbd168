"""A new bundle into a serving folder, by what differs from the one in service."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from recsys.serving.delta.apply import apply_delta
from recsys.serving.delta.make import make_delta
from recsys.serving.files import digest, plain_file
from recsys.serving.manifest import MANIFEST
from recsys.serving.releases import KEEP, Releases


class Published(NamedTuple):
    """The version in service now, bytes of the bundle and of the delta; that is 0 where nothing
    was in service before, or nothing differs."""

    version: str
    bundle_bytes: int
    delta_bytes: int


def publish_delta(bundle: Path, releases: Releases, delta: Path, keep: int = KEEP) -> Published:
    """Put a bundle in service, by a delta which is written to the file `delta` and stays, for other
    servers; whole where nothing is in service yet.

    Raises DataError where it is not as it should be, or as `apply_delta`.
    """
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    current = releases.current
    if current is None:
        return Published(releases.publish(bundle, keep=keep), size, 0)
    old = releases.path(current)
    if digest(plain_file(old, MANIFEST)) == digest(plain_file(bundle, MANIFEST)):
        return Published(current, size, 0)
    delta.parent.mkdir(parents=True, exist_ok=True)
    make_delta(old, bundle, delta)
    version = apply_delta(delta, releases, keep=keep)
    return Published(version, size, delta.stat().st_size)
