"""A serving folder: versions of a bundle, and which of them is in service.

FOLDER/
    20261130T152233123456Z-ab12cd34ef56/   a bundle: when it was published, and what its manifest is
    current                                a link to the one in service
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from feature_store.durable import cannot_write, locked, replace_link, staging, sync, sync_tree
from feature_store.errors import DataError
from feature_store.leftovers import remove_tree
from recsys.serving.files import check_files, copy_file, plain_file
from recsys.serving.holding import hold, put_away
from recsys.serving.manifest import MANIFEST, Manifest
from recsys.serving.signature import SIGNATURE
from recsys.serving.verifying import verify

CURRENT = "current"
KEEP = 3
_TIME = "%Y%m%dT%H%M%S%fZ"
_VERSION = re.compile(r"(\d{8}T\d{12}Z)-([0-9a-f]{12})")
_REMOVED = ".removed-"


class Release(NamedTuple):
    """A version in a serving folder: when it was published, the first twelve hex digits of its
    manifest's SHA-256, and whether it is in service."""

    version: str
    published: datetime
    digest: str
    current: bool


@dataclass(frozen=True)
class Releases:
    """The versions of a bundle in a serving folder; see the module. Whatever is killed, and
    whenever: the link leads to a whole bundle, the old one or the new."""

    folder: Path

    def versions(self) -> list[str]:
        """Their names, oldest first."""
        if not self.folder.is_dir():
            return []
        folders = (
            path for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()
        )
        return sorted(path.name for path in folders if _VERSION.fullmatch(path.name))

    @property
    def current(self) -> str | None:
        """The version in service; None where there is none."""
        link = self.folder / CURRENT
        version = os.readlink(link) if link.is_symlink() else ""
        return version if version in self.versions() else None

    @property
    def releases(self) -> list[Release]:
        """All versions, oldest first."""
        current = self.current
        return [Release(name, _time(name), name[-12:], name == current) for name in self.versions()]

    def path(self, version: str) -> Path:
        """The bundle of a version. Raises DataError naming those that are there."""
        if version not in self.versions():
            raise DataError(
                f"{self.folder} has no version {version!r}; it has: "
                f"{', '.join(self.versions()) or 'none'}"
            )
        return self.folder / version

    @contextmanager
    def publishing(self, keep: int = KEEP) -> Iterator[Path]:
        """An empty folder for a bundle, which is put in service when the block ends without an
        error: all of it is brought to the disk, the folder renamed, and the link replaced. Then
        versions beyond the newest `keep` are removed, but for the one in service and those that
        somebody reads.

        Raises DataError where another program publishes here, or it cannot be written.
        """
        with staging(self.folder / "bundle") as aside:
            yield aside
            sync_tree(aside)
            with locked(self.folder):
                version = self._name(aside)
                os.rename(aside, self.folder / version)
                sync(self.folder)
                replace_link(self.folder / CURRENT, version)
                self._remove_old(keep)

    def publish(self, bundle: Path, *, keep: int = KEEP, signed_by: Path | None = None) -> str:
        """Copy a bundle and put the copy in service, once it has its checksums and answers its
        golden requests; one that is here already is only put in service. Older ones go as in
        `publishing`. Returns its version.

        Raises DataError where it is not as it should be, or as `publishing`.
        """
        bundle, _held = hold(bundle)
        manifest = Manifest.load(bundle, signed_by)
        known = [name for name in self.versions() if name.endswith(_digest(bundle))]
        if known:
            check_files(bundle, manifest.files)
            version = self.serve(known[-1], signed_by=signed_by)
            with locked(self.folder):  # of what killed programs published, too
                self._remove_old(keep)
            return version
        with self.publishing(keep) as aside:
            names = [MANIFEST, *manifest.files]
            for name in [*names, SIGNATURE] if (bundle / SIGNATURE).exists() else names:
                copy_file(plain_file(bundle, name), aside / name)
            verify(aside, signed_by=signed_by)
        return self.must_serve()

    def rollback(self, to: str | None = None) -> str:
        """Put an earlier version in service: by default the one before that which is. Returns it.

        Raises DataError where there is none, or it is not what it was.
        """
        if to is None:
            current = self.must_serve()
            earlier = [name for name in self.versions() if name < current]
            if not earlier:
                raise DataError(f"{self.folder} has no version before {current}")
            to = earlier[-1]
        return self.serve(to)

    def serve(self, version: str, *, signed_by: Path | None = None) -> str:
        """Put a version that is here in service, once it is verified. Returns it."""
        verified = verify(self.path(version), signed_by=signed_by)  # held, too, until it serves
        try:
            with locked(self.folder):
                replace_link(self.folder / CURRENT, verified.folder.name)
        except OSError as error:
            raise cannot_write(self.folder / CURRENT, error) from None
        return version

    def must_serve(self) -> str:
        """The version in service. Raises DataError where there is none."""
        if (current := self.current) is None:
            raise DataError(
                f"{self.folder} serves no bundle: `recsys bundle publish BUNDLE {self.folder}`"
            )
        return current

    def _name(self, bundle: Path) -> str:
        """By the time, but later than any other version's, and the digest of the manifest."""
        now = datetime.now(UTC)
        if versions := self.versions():
            now = max(now, _time(versions[-1]) + timedelta(microseconds=1))
        return f"{now.strftime(_TIME)}-{_digest(bundle)}"

    def _remove_old(self, keep: int) -> None:
        for left in self.folder.glob(f"{_REMOVED}*"):
            remove_tree(left)
        for version in self.versions()[: -max(keep, 1)]:
            aside = self.folder / f"{_REMOVED}{version}"
            if version != self.current and put_away(self.folder / version, aside):
                remove_tree(aside)


def releases_in(folder: Path) -> Releases:
    """The versions of a run's bundle, or those in a serving folder.

    Raises DataError where there are none.
    """
    for releases in (Releases(folder / "bundles"), Releases(folder)):
        if releases.versions():
            return releases
    raise DataError(f"{folder} holds no published bundles: `recsys bundle publish BUNDLE {folder}`")


def _digest(bundle: Path) -> str:
    return hashlib.sha256(plain_file(bundle, MANIFEST).read_bytes()).hexdigest()[:12]


def _time(version: str) -> datetime:
    with suppress(ValueError):
        return datetime.strptime(version.partition("-")[0], _TIME).replace(tzinfo=UTC)
    return datetime.min.replace(tzinfo=UTC)
