"""Generator: the part of a bundle that finds items for users."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.errors import DataError
from feature_store.vocabulary import Vocabulary
from recsys.inputs import Requests
from recsys.lists.merging import MERGES
from recsys.lists.search import search
from recsys.serving.bundle import Bundle
from recsys.serving.fallback import FALLBACK, Fallback
from recsys.serving.finder import ITEM_IDS, Finder
from recsys.serving.index.base import Index, Queries
from recsys.serving.index.kinds import INDICES, load_index
from recsys.serving.index.machine import machine
from recsys.serving.index.promise import check_promise
from recsys.serving.listed import Listed
from recsys.serving.manifest import GeneratorRecord

PROGRAM, ITEMS, OLD_SPACE = "user.pt2", "items.npy", "old_space.npy"
QUERIES = "queries.npy"
REEMBEDDED = "reembedded"
"""The part of a bundle that is compatible with an older one, over items that were all
re-embedded."""


@dataclass(frozen=True)
class Generator(Finder):
    """An opened generator: a program for users, and n items with an index over them."""

    bundle: Bundle
    name: str
    record: GeneratorRecord
    program: torch.nn.Module
    items: Tensor
    item_ids: pa.Array
    index: Index
    fallback: Fallback | None

    @classmethod
    def open(cls, bundle: Bundle, name: str | None = None) -> Generator:
        """The generator of that name, by default the only one.

        Raises DataError naming the parts that are there, or the file that cannot be read.
        """
        name, record = bundle.part(GeneratorRecord, name)
        file = partial(bundle.part_file, name)
        on_disk = INDICES[type(record.index.config)].on_disk
        # copied when written to, which nobody does: torch wants no memory that is read-only
        items = torch.from_numpy(np.load(file(ITEMS), mmap_mode="c" if on_disk else None))
        item_ids = Vocabulary.load(file(ITEM_IDS)).values
        _check_items(file(ITEMS), items, item_ids, record)
        fallback = None
        if record.fallback is not None:
            fallback = Fallback.read(file(FALLBACK), item_ids, record.fallback)
        return cls(
            bundle=bundle,
            name=name,
            record=record,
            program=bundle.program(name, PROGRAM),
            items=items,
            item_ids=item_ids,
            index=load_index(file, items, record.space, record.index.config),
            fallback=fallback,
        )

    def queries(self, inputs: dict[str, Tensor]) -> Queries:
        """What users look for, from request tensors: vectors [B, K, D] and weights [B, K]."""
        with torch.no_grad():
            vectors, weights = self.program(inputs)
        return Queries(vectors, weights, self.record.space)

    @property
    def sources(self) -> tuple[str, ...]:
        """The part itself."""
        return (self.name,)

    def search(
        self,
        queries: Queries,
        k: int,
        exclude: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(scores [B, k], places [B, k]) of the best items; `exclude` [B, L] is padded with -1, and
        `allowed` [n] says which places anybody may get.

        Raises DataError for queries of another space.
        """
        return self.index.search(queries, k, exclude, MERGES[self.record.merge], allowed)

    def find(
        self,
        asked: Requests,
        k: int,
        exclude: Tensor | None = None,
        allowed: Tensor | None = None,
    ) -> Listed:
        """What the index finds for raw requests."""
        return _own(*self.search(self._queries_of(asked), k, exclude, allowed))

    def find_exactly(self, asked: Requests, k: int, exclude: Tensor | None = None) -> Listed:
        """What exact search finds for raw requests."""
        vectors, weights, _ = self._queries_of(asked)
        return _own(*search(vectors, weights, self.items, k, exclude, MERGES[self.record.merge]))

    def check_index(self) -> None:
        """`measure_index`, unless this is a machine like that it was made on."""
        promise = self.record.index.promise
        if promise is not None and promise.machine != machine():
            self.measure_index()

    def measure_index(self) -> None:
        """Measure again what its index promises. Raises DataError where it is not kept."""
        if (promise := self.record.index.promise) is not None:
            queries = torch.from_numpy(np.load(self.bundle.part_file(self.name, QUERIES)))
            check_promise(self.index, promise, queries, str(self.bundle.folder))

    def _queries_of(self, asked: Requests) -> Queries:
        reads = self.record.inputs
        return self.queries({column.name: column.from_requests(asked) for column in reads})


def _own(scores: Tensor, places: Tensor) -> Listed:
    """Lists of which a single generator is the origin."""
    return Listed(scores, places, (places >= 0).long())


def _check_items(path: Path, items: Tensor, ids: pa.Array, record: GeneratorRecord) -> None:
    shape, kind = [record.candidates], torch.int64
    if record.items == "vectors":
        shape, kind = [record.candidates, record.width], torch.float32
    if list(items.shape) != shape or items.dtype != kind or len(ids) != record.candidates:
        raise DataError(
            f"{path} holds {items.dtype} {list(items.shape)} and {len(ids)} ids, the manifest says "
            f"{kind} {shape}: export the bundle again"
        )
