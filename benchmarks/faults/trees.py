"""What a folder of runs, stores and bundles holds, without what no two runs have in common: times,
and the names that are made of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

from feature_store.errors import DataError

_VERSION = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{12}")
_TIMES = {"seconds", "finished", "created", "version", ".metadata"}
_UNLIKE = {"seconds.json", "done.json", "report.html", "days.html", ".lock", ".metadata"}
"""Files that never repeat: only that they are there, and whole, is compared."""

Facts = dict[str, str]


def facts(folder: Path) -> Facts:
    """What every file and link below a folder is, by its name; of versions of bundles that in
    service, called `current`.

    A version that is not in service has no place in it where it is whole: a program that was
    stopped behind its last step publishes again.
    """
    here: Facts = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (version := _VERSION.search(name)) is not None:
            bundles = folder / name[: version.start()]
            if os.readlink(bundles / "current") != version[0]:
                if path.name == version[0] and not _whole(path):
                    here[name] = "half a bundle"
                continue
            name = name.replace(version[0], "current version")
        if path.is_symlink():
            here[name] = f"-> {_VERSION.sub('version', os.readlink(path))}"
        elif path.is_dir():
            here[name] = "a folder"
        else:
            here[name] = _contents(path)
    return here


def _whole(bundle: Path) -> bool:
    from recsys.serving.files import check_files  # with torch: seconds
    from recsys.serving.manifest import Manifest

    try:
        check_files(bundle, Manifest.load(bundle).files)
    except DataError:
        return False
    return True


def _contents(path: Path) -> str:
    contents = path.read_bytes()
    if path.suffix == ".zip":  # a delta, which names versions
        return "there" if zipfile.is_zipfile(path) else "half"
    if path.name in _UNLIKE:
        return (
            "there"
            if path.name == ".lock" or contents.endswith((b"}\n", b"</html>\n", b"</html>"))
            else "half"
        )
    if path.suffix == ".json":
        try:
            contents = json.dumps(_timeless(json.loads(contents)), sort_keys=True).encode()
        except ValueError:
            return "half"
    return hashlib.sha256(contents).hexdigest()[:16]


def _timeless(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: _timeless(of) for name, of in tree.items() if name not in _TIMES}
    return [_timeless(of) for of in tree] if isinstance(tree, list) else tree


def differing(before: Facts, after: Facts) -> tuple[list[str], list[str]]:
    """Names of what differs or is missing in `after`, and of what only `after` has."""
    wrong = [name for name, of in before.items() if after.get(name) != of]
    return wrong, sorted(set(after) - set(before))


def hidden(folder: Path) -> list[str]:
    """Names of what is, or was, being built out of sight."""
    paths = (path for path in folder.rglob(".*") if "partial" in path.name)
    return [path.relative_to(folder).as_posix() for path in paths]
