"""Where files lie: on the disk, or in object storage, which is read through fsspec.

A place of the disk is a `Path`; what is written as a URL, such as `s3://bucket/log`, is a `Remote`,
which knows those verbs of a path that readers use. Nothing is written to object storage but whole
files, by `feature_store.transfer`.
"""

from __future__ import annotations

from feature_store.storage.place import (
    Place,
    copy_to,
    digest_of,
    files_below,
    on_disk,
    opened,
    parts_below,
    place,
    size_of,
)
from feature_store.storage.remote import Remote

__all__ = [
    "Place",
    "Remote",
    "copy_to",
    "digest_of",
    "files_below",
    "on_disk",
    "opened",
    "parts_below",
    "place",
    "size_of",
]
