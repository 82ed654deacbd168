"""Makes a new bundle of an old one and a delta, beside it, and puts it in service."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from feature_store.durable import free_bytes
from feature_store.errors import DataError
from recsys.serving.bundle import Bundle
from recsys.serving.delta.record import ByBytes, ByRows, DeltaFile, Same, new_member
from recsys.serving.delta.runs import check_runs, write_runs
from recsys.serving.delta.tables import made_of_rows, read_table, table_of, write_table
from recsys.serving.files import copy_file, digest, inner_path, opening, plain_file
from recsys.serving.manifest import MANIFEST, Manifest
from recsys.serving.releases import KEEP, Releases
from recsys.serving.signature import SIGNATURE
from recsys.serving.verifying import replay

_THREADS = min(4, os.cpu_count() or 1)


def apply_delta(
    delta: Path, releases: Releases, *, keep: int = KEEP, signed_by: Path | None = None
) -> str:
    """Make the new bundle of the one in service; returns its version, which is then in service.

    Every file has the checksum of the new manifest, and all parts answer their golden requests,
    before it is. Files that are as they were are shared with the old version.

    Raises DataError where the delta leads from another bundle, was altered, does not make what its
    manifest says, or the new bundle answers otherwise than it should.
    """
    with DeltaFile(delta) as opened:
        base = releases.path(releases.must_serve())
        _check_base(opened, base)
        with releases.publishing(keep) as aside, opening(delta):
            manifest = _manifest(opened, aside, signed_by)
            _check_space(opened, aside)
            with ThreadPoolExecutor(_THREADS) as pool:
                made = {
                    name: pool.submit(_make, opened, recipe, base, aside, name)
                    for name, recipe in opened.record.files.items()
                    if not isinstance(recipe, Same)
                }
                for name in opened.record.files.keys() - made.keys():
                    target = _share(opened, base, aside, name)
                    made[name] = pool.submit(digest, target)  # while requests are replayed
                for name, recipe in opened.record.files.items():
                    if not isinstance(recipe, Same):
                        _check_made(opened, name, made[name].result(), manifest.files[name])
                try:
                    bundle = Bundle.of_checked_files(aside, manifest)
                    for name in manifest.parts:
                        replay(bundle, name)
                finally:  # what was altered is told first
                    for name, future in made.items():
                        _check_made(opened, name, future.result(), manifest.files[name])
    return releases.must_serve()


def _check_base(delta: DeltaFile, base: Path) -> None:
    there = digest(plain_file(base, MANIFEST))
    if there == delta.record.target:
        raise DataError(f"{delta.path} was applied already: {base} is what it makes")
    if there != delta.record.base:
        raise DataError(
            f"{delta.path} leads from the bundle {delta.record.base[:12]}, and {base} is "
            f"{there[:12]}: make a delta from that, or publish the whole bundle"
        )


def _manifest(delta: DeltaFile, aside: Path, signed_by: Path | None) -> Manifest:
    """Write that of the new bundle. Raises DataError where it is not that of the recipes."""
    for name in (MANIFEST, SIGNATURE):
        if name in delta.record.members:
            (aside / name).write_bytes(delta.member(name))
    manifest = Manifest.load(aside, signed_by)
    if digest(aside / MANIFEST) != delta.record.target:
        raise DataError(f"{delta.path}: {MANIFEST} is not that of its target: it was altered")
    if manifest.files.keys() != delta.record.files.keys():
        raise DataError(f"{delta.path} makes other files than its {MANIFEST} names: it was altered")
    return manifest


def _check_space(delta: DeltaFile, aside: Path) -> None:
    recipes = delta.record.files.values()
    needed = sum(recipe.size for recipe in recipes if not isinstance(recipe, Same))
    if (free := free_bytes(aside)) < needed:
        raise DataError(
            f"{delta.path} makes files of {needed / 1e9:.2f} GB, and {free / 1e9:.2f} GB of that "
            "disk are free: make room"
        )


def _share(delta: DeltaFile, base: Path, aside: Path, name: str) -> Path:
    """Put a file of the old version into the new one."""
    old, target = plain_file(base, name), _target(delta, aside, name)
    try:
        os.link(old, target, follow_symlinks=False)
    except OSError:  # a disk without links
        copy_file(old, target)
    return target


def _make(delta: DeltaFile, recipe: ByBytes | ByRows, base: Path, aside: Path, name: str) -> str:
    """Make a file; returns its SHA-256."""
    target = _target(delta, aside, name)
    runs, fresh = delta.runs(recipe.member), delta.member(new_member(recipe.member))
    if isinstance(recipe, ByRows):
        return _make_rows(recipe, runs, fresh, plain_file(base, name), target)
    before = plain_file(base, name) if (base / name).exists() else None
    size = 0 if before is None else before.stat().st_size
    check_runs(runs, size, len(fresh), recipe.size, name)
    return write_runs(before, runs, fresh, target)


def _target(delta: DeltaFile, aside: Path, name: str) -> Path:
    """Where a file is to lie. Raises DataError for a name that leads elsewhere, or to a file that
    is not one of those."""
    target = inner_path(aside, name)
    if name in (MANIFEST, SIGNATURE) or target.relative_to(aside).as_posix() != name:
        raise DataError(f"{delta.path} makes {name!r}, which is no name of a bundle's file")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _make_rows(recipe: ByRows, runs: np.ndarray, fresh: bytes, old: Path, target: Path) -> str:
    (before, _), (after, _) = read_table(old), table_of(fresh, target)
    most = before.num_rows + after.num_rows  # each row comes once
    check_runs(runs, before.num_rows, after.num_rows, min(recipe.rows, most), target.name)
    written_whole = recipe.writer != "users" or sum(recipe.batches) == recipe.rows
    if before.schema != after.schema or not written_whole or target.exists():
        raise DataError(f"{target.name}: the delta's rows do not fit the old ones: it was altered")
    write_table(made_of_rows(before, runs, after), recipe.writer, recipe.batches, target)
    return digest(target)


def _check_made(delta: DeltaFile, name: str, made: str, expected: str) -> None:
    if made == expected:
        return
    record, recipe = delta.record, delta.record.files[name]
    if isinstance(recipe, Same):
        why = "the bundle in service was altered: publish the whole bundle"
    elif isinstance(recipe, ByRows) and record.versions.get("pyarrow") != pa.__version__:
        why = (
            f"it was written by pyarrow {record.versions.get('pyarrow')}, here is "
            f"{pa.__version__}: make the delta with that, or publish the whole bundle"
        )
    else:
        why = "the delta or the bundle in service was altered: publish the whole bundle"
    raise DataError(f"{delta.path}: {name} does not become what its {MANIFEST} says: {why}")
