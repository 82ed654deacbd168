"""Whether a bundle is what its manifest says and answers as it should, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from feature_store.errors import RecsysError
from recsys.serving.answering import Answering
from recsys.serving.bundle import Bundle
from recsys.serving.explainer import Explainer
from recsys.serving.files import opening
from recsys.serving.manifest import GeneratorRecord, PartRecord, RankerRecord
from recsys.serving.recommender import Recommender
from recsys.serving.scorer import Scorer

FILES = "files"


class Check(NamedTuple):
    """What was looked at, whether all is well, what there is to say of it, and how long it took."""

    part: str
    well: bool
    told: str
    seconds: float


def replay(bundle: Bundle, name: str) -> Answering:
    """Ask a part of a bundle its golden requests, and its index what it promises, where it was made
    on another machine. Raises DataError where an answer differs, or a promise is not kept."""
    with opening(bundle.folder):
        part = _answering(bundle.manifest.parts[name])(bundle, name)
        part.verify()
        part.check_index()
    return part


def verify(folder: Path, *, signed_by: Path | None = None) -> Bundle:
    """Open a bundle and ask all of its parts their golden requests.

    Raises DataError where a file was altered, or an answer differs.
    """
    with opening(folder):
        bundle = Bundle.open(folder, signed_by=signed_by)
    for name in bundle.manifest.parts:
        replay(bundle, name)
    return bundle


def checks(folder: Path, *, signed_by: Path | None = None) -> list[Check]:
    """What `verify` looks at, each by itself: the files, then every part. Of files that are not
    what they should be nothing is asked."""
    bundle: Bundle | None = None

    def open_files() -> str:
        nonlocal bundle
        with opening(folder):
            bundle = Bundle.open(folder, signed_by=signed_by)
        files = bundle.manifest.files
        size = sum(bundle.file(name).stat().st_size for name in files)
        return f"{len(files)} files of {size / 1e6:.1f} MB have their checksums"

    done = [_checked(FILES, open_files)]
    if bundle is not None:
        done += [_checked(name, partial(_ask, bundle, name)) for name in bundle.manifest.parts]
    return done


def _ask(bundle: Bundle, name: str) -> str:
    record = bundle.manifest.parts[name]
    part = replay(bundle, name)
    told = f"{record.noun}: answers its golden requests"
    if isinstance(record, GeneratorRecord) and record.index.promise is not None:
        assert isinstance(part, Recommender)
        part.generator.measure_index()
        told += f", its index keeps its promise of {record.index.promise.promise}"
    return told


def _checked(part: str, look: Callable[[], str]) -> Check:
    start = time.perf_counter()
    try:
        well, told = True, look()
    except RecsysError as error:
        well, told = False, str(error)
    return Check(part, well, told, time.perf_counter() - start)


def _answering(record: PartRecord) -> type[Answering]:
    if isinstance(record, RankerRecord):
        return Explainer if record.explains else Scorer
    return Recommender
