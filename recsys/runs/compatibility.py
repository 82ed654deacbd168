"""A bundle in service and a new run -> what the upgrade is worth, on the new run's test."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from feature_store.columns import HISTORY, TARGET
from feature_store.errors import ConfigError, DataError
from feature_store.parquet import read_parquet
from recsys.compatible.contract import wider
from recsys.compatible.matrix import (
    Asked,
    Compatibility,
    Gallery,
    Halves,
    Requests,
    compare,
)
from recsys.compatible.mixed import Calibration
from recsys.compatible.options import bundle_folder
from recsys.data.examples import Examples
from recsys.export.requests import raw_requests
from recsys.inputs import History, Input
from recsys.inputs import Requests as RawRequests
from recsys.lists.merging import MERGES
from recsys.runs.parts import part_config
from recsys.runs.phases import phases_of
from recsys.runs.prepare import prepare
from recsys.serving.bundle import Bundle
from recsys.serving.generator import OLD_SPACE, REEMBEDDED, Generator

_CALIBRATED_BY = 512  # users whose newest queries are scored, without what they did next
_ASKED = 1024  # requests at a time


class _Opened(NamedTuple):
    """The generator in service; and of the new run the one over the old index, and the one over
    new vectors, which is the same where it follows no bundle."""

    old: Generator
    served: Generator
    own: Generator


def compatibility(
    old: Path, new: Path, *, k: int = 10, persistence: float = 0.9, requests: int | None = None
) -> Compatibility:
    """Ask both models the test requests of the new run, or the first `requests` of them.

    The old model is asked as its bundle alone answers: raw ids that it does not know are left out.
    `new` is the folder of a run that has a bundle, `old` one or that of a bundle. Old and new items
    are compared by the new model's map; models without one are compared as they are, to show what
    that is worth.

    Raises DataError where there is nothing to compare.
    """
    if k < 1 or not 0 < persistence < 1:
        raise DataError("k must be at least 1, and p between 0 and 1")
    config = part_config("NEW", new)
    examples = prepare(config, phases_of(config.trainer)[-1])
    opened = _open(old, new)
    table, asked_raw = _requests(examples, opened, requests, config.split.seen == "exclude")
    numbers = _Numbers.of([g.item_ids for g in opened])
    seen = asked_raw.column(HISTORY) if config.split.seen == "exclude" else None
    judged = Requests(
        numbers.lists(seen, len(asked_raw)),
        numbers.lists(_targets(examples, table), len(asked_raw)),
    )
    queries = {name: _ask(generator, asked_raw) for name, generator in opened._asdict().items()}
    return _compare(opened, queries, numbers, judged, k, persistence)


def _compare(
    opened: _Opened,
    queries: dict[str, Asked],
    numbers: _Numbers,
    judged: Requests,
    k: int,
    persistence: float,
) -> Compatibility:
    old, served, own = opened
    lineage = served.record.lineage
    of = {name: numbers.of_ids(g.item_ids) for name, g in opened._asdict().items()}
    gallery = Gallery(old.items, of["old"])
    notes = []
    if lineage is None or old.record.space not in lineage.ancestors:
        if old.record.space == served.record.space:
            raise DataError("both are of one space: they are the same model, or bundles of it")
        width = max(old.items.shape[1], own.items.shape[1])
        notes.append("no map: vectors were compared as they are, the narrower ones with zeros")
        vectors = {
            "old": Gallery(wider(old.items, width), of["old"]),
            "new": Gallery(wider(own.items, width), of["own"]),
        }
        asked = {name: _wide(queries[name], width) for name in ("old", "own")}
        return compare(
            {f"{q}/{i}": asked["old" if q == "old" else "own"] for q in vectors for i in vectors},
            {f"{q}/{i}": vectors[i] for q in vectors for i in vectors},
            judged,
            k=k,
            persistence=persistence,
            notes=tuple(notes),
        )
    known = torch.isin(of["served"], of["old"])
    index = gallery
    if served.record.space != old.record.space:  # the old vectors lie there otherwise
        index = Gallery(served.items[known], of["served"][known])
        notes.append("the old vectors were computed anew where they lie, without any model")
    old_space = Gallery(_old_space(own), of["own"])
    halves = Halves(served.items, own.items, of["served"], queries["served"], queries["own"])
    return compare(
        {
            "old/old": queries["old"],
            "old/new": queries["old"],
            "new/old": queries["served"],
            "new/new": queries["own"],
        },
        {"old/old": gallery, "old/new": old_space, "new/old": index, "new/new": _gallery(own, of)},
        judged,
        k=k,
        persistence=persistence,
        halves=halves,
        calibration=calibration_between(served, own),
        method=lineage.method,
        notes=tuple(notes),
    )


def _gallery(own: Generator, of: dict[str, Tensor]) -> Gallery:
    return Gallery(own.items, of["own"])


def _wide(asked: Asked, width: int) -> Asked:
    return asked._replace(vectors=wider(asked.vectors, width))


def _open(old: Path, new: Path) -> _Opened:
    before, after = Bundle.open(bundle_folder(old)), Bundle.open(bundle_folder(new))
    served = Generator.open(after)
    follows = REEMBEDDED in after.manifest.parts
    opened = _Opened(
        Generator.open(before), served, Generator.open(after, REEMBEDDED) if follows else served
    )
    for generator in opened:
        if generator.record.items != "vectors":
            raise ConfigError(
                f"{generator.bundle.folder}: {generator.record.about.model} scores all items "
                "without vectors: there is no space to compare"
            )
    return opened


def _old_space(own: Generator) -> Tensor:
    return torch.from_numpy(np.load(own.bundle.part_file(own.name, OLD_SPACE)))


def _requests(
    examples: Examples, opened: _Opened, most: int | None, exclude_seen: bool
) -> tuple[pa.Table, pa.Table]:
    """Test requests that have a history and something to find, encoded and raw."""
    table = read_parquet(examples.folder / "test.parquet")
    history, targets = (table.column(name).combine_chunks() for name in (HISTORY, TARGET))
    kept = pc.list_value_length(history).to_numpy() > 0
    if exclude_seen:
        kept &= np.array([_new(*both) for both in zip(history, targets, strict=True)])
    rows = np.flatnonzero(kept)[:most]
    if not len(rows):
        raise DataError(f"{examples.folder}: no test request has a history and a new target")
    table = table.take(pa.array(rows)).combine_chunks()
    inputs: dict[str, Input] = {HISTORY: History(examples.schema.item)}
    for generator in opened:
        inputs |= {asked.name: asked for asked in generator.record.inputs}
    return table, raw_requests(examples, table, tuple(inputs.values()))


def _new(history: pa.ListScalar, targets: pa.ListScalar) -> bool:
    return bool(set(targets.as_py()) - set(history.as_py()))


def _targets(examples: Examples, table: pa.Table) -> pa.ListArray:
    column = table.column(TARGET).combine_chunks()
    ids = examples.vocabulary(examples.schema.item).decode(column.flatten().to_numpy())
    lengths = pc.list_value_length(column).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, ids)


def _ask(generator: Generator, requests: pa.Table) -> Asked:
    vocabularies = generator.bundle.vocabularies_of(generator.name)
    answers = []
    for first in range(0, requests.num_rows, _ASKED):
        asked = RawRequests(requests.slice(first, _ASKED).combine_chunks(), vocabularies)
        inputs = {column.name: column.from_requests(asked) for column in generator.record.inputs}
        answers.append(generator.queries(inputs))
    vectors = torch.cat([each.vectors for each in answers])
    weights = torch.cat([each.weights for each in answers])
    return Asked(vectors, weights, MERGES[generator.record.merge])


def calibration_between(served: Generator, own: Generator) -> Calibration:
    """Of a new model's queries over the old index and over items of its own: from the scores that
    all items have for what known users ask now."""
    users = own.bundle.users
    wanted = users.users().slice(0, _CALIBRATED_BY)
    requests = users.of(wanted, users.column_names)
    before, after = (
        _ask(generator, requests).vectors.flatten(0, 1) @ generator.items.T
        for generator in (served, own)
    )
    return Calibration.of(before, after)


class _Numbers:
    """Raw ids of items as numbers that all galleries share."""

    def __init__(self, ids: pd.Index) -> None:
        self._ids = ids

    @classmethod
    def of(cls, galleries: Iterable[pa.Array]) -> _Numbers:
        """Of all items of several galleries."""
        ids = [pd.Index(gallery.to_pandas()) for gallery in galleries]
        return cls(ids[0].append(ids[1:]).unique())

    def of_ids(self, ids: pa.Array) -> Tensor:
        """Numbers [N] of ids [N], -1 for those of no gallery."""
        return torch.from_numpy(self._ids.get_indexer(pd.Index(ids.to_pandas())).astype(np.int64))

    def lists(self, lists: pa.Array | None, count: int) -> Tensor:
        """Numbers [B, L] of lists of ids [B], -1 where they end, or where no gallery has one."""
        if lists is None:
            return torch.full((count, 1), -1)
        if isinstance(lists, pa.ChunkedArray):
            lists = lists.combine_chunks()
        lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
        padded = np.full((count, max(1, int(lengths.max(initial=0)))), -1, dtype=np.int64)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = self.of_ids(lists.flatten())
        return torch.from_numpy(padded)
