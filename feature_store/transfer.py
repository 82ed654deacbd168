"""Whole folders to object storage and back: a log, examples, a bundle, a run.

Files become objects of the same names, and a manifest with their sizes and checksums is written
last: a folder without one is not whole, and is refused. Whoever fetches a folder compares every
file with it, and has all of them or nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from feature_store.durable import staged, sync
from feature_store.errors import DataError
from feature_store.storage import Remote, digest_of, place

MANIFEST = "_files.json"
_TRANSFERS = 8  # at once
_KEPT = 2  # versions of a folder that stay in the cache
# of programs that are at work, or were killed
_UNFINISHED = re.compile(r"^(\.lock|\..*\.(partial|removed|replaced)(-\w+)?)$")


class File(BaseModel):
    """What a file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    bytes: int
    sha256: str


class Contents(BaseModel):
    """The manifest: files, and links within the folder, by their paths."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    files: dict[str, File]
    links: dict[str, str] = {}

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files.values())


class Pushed(NamedTuple):
    """Files of a folder, how many of them were not there yet, and the bytes of all."""

    files: int
    uploaded: int
    bytes: int


def push(folder: Path, to: Remote, *, replace: bool = False) -> Pushed:
    """Upload a folder. Files that are there already stay, and new ones join them.

    With `replace` others are overwritten or removed: while one is overwritten, the folder there
    is not whole.

    Raises DataError where there is something else and it is not to be replaced, where a file
    changes meanwhile, for links that lead out of the folder, and where the storage fails.
    """
    contents, before = _contents_of(folder), _contents_at(to)
    old = {} if before is None else before.files
    changed = {name for name, file in contents.files.items() if old.get(name, file) != file}
    # without a manifest they may be of a push that was stopped
    there = set(old) or {"/".join(at.below(to)) for at in to.rglob("*")}
    removed = there - set(contents.files) - {MANIFEST}
    if (changed or removed) and not replace:
        raise DataError(
            f"{to} holds something else, such as {min(changed | removed)}: choose another place, "
            "or replace it with --replace"
        )
    if changed:
        (to / MANIFEST).unlink()
    new = [name for name, file in contents.files.items() if old.get(name) != file]
    _at_once(new, lambda name: _upload(folder / name, to / name, contents.files[name]))
    if changed or contents != before:
        (to / MANIFEST).write_bytes(contents.model_dump_json(indent=1).encode())
    _at_once(removed, lambda name: (to / name).unlink())
    return Pushed(len(contents.files), len(new), contents.bytes)


def pull(source: Remote, folder: Path, *, replace: bool = False) -> Contents:
    """Fetch what `push` uploaded; the folder appears whole or not at all.

    Raises DataError where it is not whole, a file is not as it was, and without `replace` where
    `folder` holds something.
    """
    contents = contents_of(source)
    if not replace and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder} exists: choose another folder, or replace it with --replace")
    with staged(folder) as aside:
        _at_once(
            contents.files,
            lambda name: _fetch(source / name, aside / name, contents.files[name]),
        )
        for name, target in contents.links.items():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(target, aside / name)
        for path in aside.rglob("*"):
            if not path.is_symlink():
                sync(path)
    return contents


def cached(source: Remote) -> Path:
    """A copy of a folder on the disk, below $RECSYS_CACHE or `~/.cache/recsys`, fetched unless it
    was before; the newest two versions stay. Raises DataError as `pull`."""
    manifest = contents_of(source).model_dump_json()
    root = Path(os.environ.get("RECSYS_CACHE") or Path.home() / ".cache" / "recsys")
    versions = root / hashlib.sha256(str(source).encode()).hexdigest()[:16]
    folder = versions / hashlib.sha256(manifest.encode()).hexdigest()[:16] / source.name
    if not folder.exists():
        pull(source, folder)
        for old in sorted(versions.iterdir(), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def fetched(folder: Path) -> Path:
    """The folder; of one in object storage, a copy on the disk. Raises DataError as `pull`."""
    at = place(folder)
    return cached(at) if isinstance(at, Remote) else folder


def contents_of(source: Remote) -> Contents:
    """The manifest of a folder in object storage. Raises DataError where it is not whole."""
    contents = _contents_at(source)
    if contents is None:
        raise DataError(
            f"{source} is no whole folder: it has no {MANIFEST}, which `recsys push` writes last"
        )
    return contents


def _contents_at(at: Remote) -> Contents | None:
    try:
        contents = Contents.model_validate_json((at / MANIFEST).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(f"{at / MANIFEST} is no manifest: {key}: {first['msg']}") from None
    for name in (*contents.files, *contents.links, *contents.links.values()):
        _check_inside(at, name)
    links = set(map(PurePosixPath, contents.links))
    for path in map(PurePosixPath, (*contents.files, *contents.links)):
        if links & set(path.parents) or str(path) in contents.files.keys() & contents.links.keys():
            raise DataError(f"{at} is not to be trusted: {path} lies behind a link")
    return contents


def _contents_of(folder: Path) -> Contents:
    """What a folder holds. Raises DataError where that is nothing, or a link leads out of it."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder")
    folder = folder.resolve()
    files, links = {}, {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(_UNFINISHED.match(part) for part in name.parts):
            continue
        if path.is_symlink():
            links[name.as_posix()] = target = os.readlink(path)
            _check_inside(folder, target)
        elif path.is_file():
            files[name.as_posix()] = File(bytes=path.stat().st_size, sha256=digest_of(path))
    if not files:
        raise DataError(f"{folder} holds no files")
    return Contents(files=files, links=links)


def _check_inside(folder: Path | Remote, name: str) -> None:
    """Raises DataError for a name that leads out of the folder."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\\" in name or "\0" in name:
        raise DataError(f"{folder} is not to be trusted: {name!r} is nothing inside it")


def _at_once(names: Iterable[str], do: Callable[[str], object]) -> None:
    with ThreadPoolExecutor(_TRANSFERS) as pool:
        for done in [pool.submit(do, name) for name in names]:
            done.result()


def _upload(file: Path, at: Remote, expected: File) -> None:
    at.upload(file)
    if file.stat().st_size != expected.bytes or digest_of(file) != expected.sha256:
        raise DataError(f"{file} changes while it is uploaded: wait until its program has ended")


def _fetch(at: Remote, file: Path, expected: File) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        at.download(file)
    except FileNotFoundError:
        raise DataError(f"{at} is missing: push the folder again") from None
    if file.stat().st_size != expected.bytes or digest_of(file) != expected.sha256:
        raise DataError(f"{at} is not what was pushed: it was altered, or is being replaced")
