"""Trained models -> a bundle of parts, each verified before the folder appears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.catalogue import Catalogue
from feature_store.durable import free_bytes, staged
from feature_store.errors import DataError
from feature_store.examples import parts_of
from feature_store.parquet import open_parquet, read_batches, read_parquet
from feature_store.storage import Place, copy_to, size_of
from feature_store.vocabulary import vocabulary_file
from recsys.data.examples import Examples
from recsys.doctor import installed
from recsys.serving.bundle import CATALOGUE, PARTS, SCHEMA, USERS, Bundle
from recsys.serving.files import digest
from recsys.serving.manifest import Manifest, PartRecord
from recsys.serving.releases import CURRENT, KEEP, Releases

_USER_ROWS = 1 << 16  # written at a time


class PartExport(Protocol):
    """What writes a part of a bundle."""

    noun: ClassVar[str]

    @property
    def examples(self) -> Examples:
        """What the model was trained on."""

    @property
    def features(self) -> tuple[str, ...]:
        """The features whose raw ids it reads or answers with."""

    @property
    def bytes(self) -> int:
        """Of its weights, which may come to lie in the bundle in fewer bits."""

    def write(self, folder: Path) -> PartRecord:
        """Write the part's files into its folder, golden requests among them."""

    def verify(self, bundle: Bundle, name: str) -> None:
        """Ask the written part its golden requests. Raises DataError where an answer differs."""


def write_bundle(
    folder: Path,
    parts: Mapping[str, PartExport],
    catalogue: Catalogue,
    *,
    own_ids: bool = False,
) -> Bundle:
    """Write a bundle of parts by name, verify each by opening it, and only then put the folder in
    place.

    With `own_ids` a part may know other raw ids than the first one, and then brings its own.

    Raises:
        DataError: parts of different logs, or one that answers otherwise than its model.
    """
    _refuse_other_logs(parts, own_ids)
    _look_for_space(folder, parts, catalogue)
    with staged(folder) as aside:
        _fill(aside, parts, catalogue)
    return Bundle.open(folder)


def publish_bundle(
    releases: Releases,
    parts: Mapping[str, PartExport],
    catalogue: Catalogue,
    *,
    own_ids: bool = False,
    keep: int = KEEP,
) -> Bundle:
    """`write_bundle` as a new version in a serving folder, which is then in service; the newest
    `keep` stay there. Raises DataError as `write_bundle`."""
    _refuse_other_logs(parts, own_ids)
    _look_for_space(releases.folder, parts, catalogue)
    with releases.publishing(keep) as aside:
        _fill(aside, parts, catalogue)
    return Bundle.open(releases.folder / CURRENT)


def _fill(aside: Path, parts: Mapping[str, PartExport], catalogue: Catalogue) -> None:
    """Write a bundle into an empty folder, and ask it its golden requests."""
    examples = next(iter(parts.values())).examples
    examples.schema.save(aside / SCHEMA)
    vocabularies = _write_vocabularies(aside, parts)
    if catalogue.path("item").exists():
        copy_to(catalogue.path("item"), aside / CATALOGUE)
    _write_users(parts_of(examples.folder, "serving"), examples.schema.user, aside / USERS)
    records = {}
    for name, part in parts.items():
        own = aside / PARTS / name
        own.mkdir(parents=True)
        theirs = _write_own_vocabularies(own, f"{PARTS}/{name}", part, examples)
        records[name] = part.write(own).model_copy(update={"vocabularies": theirs})
    files = sorted(path for path in aside.rglob("*") if path.is_file())
    Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        vocabularies=vocabularies,
        parts=records,
        versions=versions(),
        files={path.relative_to(aside).as_posix(): digest(path) for path in files},
    ).save(aside)
    written = Bundle.open(aside)
    for name, part in parts.items():
        part.verify(written, name)


def _look_for_space(folder: Path, parts: Mapping[str, PartExport], catalogue: Catalogue) -> None:
    """Raises DataError where what is copied, and the weights, do not fit on the disk."""
    examples = next(iter(parts.values())).examples
    needed = sum(part.bytes for part in parts.values())
    copied = (*parts_of(examples.folder, "serving"), catalogue.path("item"))
    needed += sum(size_of(path) for path in copied if path.exists())
    if (free := free_bytes(folder)) < needed:
        raise DataError(
            f"{folder} cannot be written: it takes {needed / 1e9:.2f} GB at least, and "
            f"{free / 1e9:.2f} GB of that disk are free: make room, then `recsys export` again"
        )


def versions() -> dict[str, str]:
    """Of what wrote a bundle; this package may be a copy of its folder that nobody installed."""
    return {name: installed(name) or "not installed" for name in ("recsys", "torch")}


def _refuse_other_logs(parts: Mapping[str, PartExport], own_ids: bool) -> None:
    """Parts share schema, users and, unless they may have their own, ids."""
    known: dict[str, tuple[str, str]] = {}
    for name, part in parts.items():
        schema = part.examples.schema
        shared = {"schemas": schema.fingerprint}
        for feature in () if own_ids else part.features:
            ids = f"ids of {schema[feature].table_name}"
            shared[ids] = part.examples.vocabulary(feature).fingerprint
        for what, fingerprint in shared.items():
            other, expected = known.setdefault(what, (name, fingerprint))
            if fingerprint != expected:
                raise DataError(
                    f"parts {other} and {name} have different {what}: a bundle holds parts that "
                    "were trained on the same log"
                )


def _write_vocabularies(folder: Path, parts: Mapping[str, PartExport]) -> dict[str, str]:
    """Write the raw ids of every table that a part reads, as the first part knows them; returns the
    file of each feature."""
    (folder / "vocabulary").mkdir()
    files = {}
    examples = next(iter(parts.values())).examples
    for part in parts.values():
        for feature in part.features:
            table = part.examples.schema[feature].table_name
            files[feature] = f"vocabulary/{vocabulary_file(table)}"
            if not (folder / files[feature]).exists():
                examples.vocabulary(feature).save(folder / files[feature])
    return files


def _write_own_vocabularies(
    folder: Path, place: str, part: PartExport, examples: Examples
) -> dict[str, str]:
    """Write the raw ids of a part that are not those of the bundle; returns the file of each
    feature of such."""
    files = {}
    for feature in part.features:
        known = part.examples.vocabulary(feature)
        if known.fingerprint != examples.vocabulary(feature).fingerprint:
            name = f"vocabulary/{vocabulary_file(part.examples.schema[feature].table_name)}"
            (folder / "vocabulary").mkdir(exist_ok=True)
            known.save(folder / name)
            files[feature] = f"{place}/{name}"
    return files


def _write_users(tables: Sequence[Place], user: str, path: Path) -> None:
    """Copy Parquet files into one that serving maps into memory, a stretch at a time; of a user
    the row of the last file that has one."""
    schema = open_parquet(tables[0]).schema_arrow
    renewed = [read_parquet(table, [user]).column(0) for table in tables[1:]]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for number, table in enumerate(tables):
            later = [chunk for column in renewed[number:] for chunk in column.chunks]
            known_later = pa.chunked_array(later, schema.field(user).type)
            for batch in read_batches(table, _USER_ROWS):
                again = pc.is_in(batch.column(user), value_set=known_later)
                writer.write_batch(batch.filter(pc.invert(again)) if later else batch)
