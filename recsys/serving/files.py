"""The files of a bundle: a manifest with their checksums, checked whenever one is opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from feature_store.durable import staged
from feature_store.errors import DataError

FORMAT = 3
MANIFEST = "manifest.json"


def read_manifest(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of a bundle of a kind ("retriever" or "ranker"), its files checked.

    Raises DataError naming the file that is missing, altered or of another format.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} is not a bundle: {error}") from None
    if manifest.get("format") != FORMAT:
        raise DataError(
            f"{folder} has bundle format {manifest.get('format')}, this program reads "
            f"{FORMAT}: export it again"
        )
    if manifest["kind"] != kind:
        raise DataError(
            f"{folder} is the bundle of a {manifest['kind']}, not of a {kind}: ask it with "
            f"`recsys {'score' if manifest['kind'] == 'ranker' else 'recommend'}`"
        )
    check_files(folder, manifest["files"])
    return manifest


@contextmanager
def new_bundle(folder: Path) -> Iterator[Path]:
    """A folder for a bundle's files that takes the place of `folder` when the block ends well."""
    with staged(folder) as aside:
        (aside / "vocabulary").mkdir()
        yield aside


def write_manifest(folder: Path, kind: str, about: dict[str, Any]) -> None:
    """Write what is said of the bundle, with checksums of all files that are there."""
    manifest = {
        "format": FORMAT,
        "kind": kind,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
        "versions": {name: version(name) for name in ("recsys", "torch")},
        "files": {
            str(path.relative_to(folder)): digest(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path, files: dict[str, str]) -> None:
    """Compare files with their checksums. Raises DataError naming the first that differs."""
    for name, expected in files.items():
        path = folder / name
        if not path.exists():
            raise DataError(f"{folder}: {name} is missing: export the bundle again")
        if digest(path) != expected:
            raise DataError(f"{folder}: {name} was altered after the export: export it again")
