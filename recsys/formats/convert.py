"""A bundle -> a folder of other formats, each proved by the golden requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from feature_store.durable import staged
from feature_store.errors import ConfigError, DataError
from feature_store.progress import stage
from feature_store.vocabulary import Keys
from recsys.formats.about import ABOUT, write_about
from recsys.formats.aotinductor import write_aotinductor
from recsys.formats.onnx import write_onnx
from recsys.formats.parquet import write_items
from recsys.formats.source import Source, source_of
from recsys.serving.bundle import Bundle

Writer = Callable[[Source, Path], list[str]]
"""Writes a format into a folder, opens it again and asks it the golden requests; returns the names
of its files. Raises DataError where an answer differs."""

FORMATS: Mapping[str, Writer] = {
    "onnx": write_onnx,
    "aotinductor": write_aotinductor,
    "parquet": write_items,
}


def convert(bundle: Bundle, formats: Sequence[str], out: Path, part: str | None = None) -> Source:
    """Write a part of a bundle into the folder `out`, which appears once all formats are proved;
    an earlier conversion there is replaced.

    Raises:
        ConfigError: a format is unknown, or lacks a package, or the program of a part reads ids
            without a vocabulary.
        DataError: the part is not there, cannot be written so or answers otherwise, or the folder
            holds something else.
    """
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"no format is called {name!r}; there are: {', '.join(FORMATS)}")
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / ABOUT).exists())):
        raise DataError(
            f"{out} holds something that is no conversion of a bundle: name a folder that is not "
            "there yet"
        )
    source = source_of(bundle, part)
    _check_ids(source, formats)
    with staged(out) as folder:
        files = {}
        for name in dict.fromkeys(formats):
            with stage(f"write {source.model} as {name} and ask it the golden requests"):
                files[name] = FORMATS[name](source, folder)
        write_about(source, folder, files)
    return source


def _check_ids(source: Source, formats: Sequence[str]) -> None:
    programs = [name for name in formats if name != "parquet"]  # which holds items alone
    known = source.bundle.vocabularies_of(source.name)
    read = [asked.feature for asked in source.record.inputs if programs and asked.feature]
    if keyed := [name for name in read if isinstance(known[name], Keys)]:
        raise ConfigError(
            f"{', '.join(keyed)} have no vocabulary, and {programs[0]} files come with lists of "
            "ids that say what to feed: ask the bundle itself (`recsys serve`), or train with "
            "vocabulary = 'log'"
        )
