"""The published MovieLens archives, fetched once and checked."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import urllib.error
import urllib.request
import uuid
import zipfile
from pathlib import Path
from typing import Literal

from feature_store.errors import DataError

Release = Literal[
    "ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest-small", "ml-latest"
]
ADDRESS = "https://files.grouplens.org/datasets/movielens"
MD5 = {  # releases that never change; for the others the publisher's .md5 is asked, if there is one
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-10m": "ce571fd55effeba0271552578f2648bd",
    "ml-20m": "cd245b17a1ae2cc31bb14903e1204af3",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
}
_TIMEOUT_S = 30


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/recsys`, or `~/.cache/recsys`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "recsys"


def fetch(release: Release, cache: Path) -> Path:
    """The archive of a release in the folder `cache`, downloaded if it is not there.

    Raises:
        DataError: the publisher cannot be reached, or what came is not what it publishes.
    """
    archive = Path(cache).expanduser() / f"{release}.zip"
    if archive.exists():
        return archive
    address = f"{ADDRESS}/{release}.zip"
    aside = archive.with_name(f".{archive.name}.{uuid.uuid4().hex}")
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S) as reply, open(aside, "wb") as to:
            shutil.copyfileobj(reply, to, 1 << 20)
            to.flush()
            os.fsync(to.fileno())
        _check(aside, release, address)
        os.replace(aside, archive)
    except OSError as error:  # urllib's errors are among these
        why = getattr(error, "reason", None) or error
        raise DataError(
            f"cannot download {address} ({why}): fetch it by hand and put it at {archive}, "
            "or give its folder as path"
        ) from None
    finally:
        aside.unlink(missing_ok=True)
    return archive


def _check(archive: Path, release: Release, address: str) -> None:
    expected = MD5.get(release) or _published_md5(address)
    with open(archive, "rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    if expected and digest != expected:
        raise DataError(f"{address} came with md5 {digest}, not {expected}: download it again")
    try:
        with zipfile.ZipFile(archive) as opened:
            broken = opened.testzip()
    except zipfile.BadZipFile as error:
        broken = str(error)
    if broken:
        raise DataError(f"{address} came broken ({broken}): download it again")


def _published_md5(address: str) -> str | None:
    try:
        with urllib.request.urlopen(f"{address}.md5", timeout=_TIMEOUT_S) as reply:
            text = reply.read(4096).decode("ascii", "replace")
    except urllib.error.HTTPError:
        return None  # not every archive has one; its own checksums are tested in any case
    digest = re.search(r"\b[0-9a-f]{32}\b", text.lower())
    return digest.group() if digest else None
