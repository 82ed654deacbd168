"""Items in another engine, which finds the nearest of them. K interests, D width, S items found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.columns import EXPECTED_ITEMS
from feature_store.errors import DataError
from feature_store.vocabulary import Vocabulary
from recsys.formats.items import generator_of
from recsys.formats.source import GeneratorSource, Source
from recsys.inputs import Requests
from recsys.lists.merging import MERGES
from recsys.serving.finder import Listed
from recsys.serving.generator import Generator


class Loaded(NamedTuple):
    """What was loaded: rows, and the index's recall of the exact lists, where there is an index."""

    rows: int
    recall: float | None


class ItemStore(ABC):
    """A table of items with their vectors."""

    @abstractmethod
    def nearest(self, vectors: np.ndarray, k: int, seen: list[Any]) -> tuple[list[Any], np.ndarray]:
        """Ids of the k items that are nearest to each of the vectors [K, D], by inner product and
        without those `seen`, in any order, S in all; and their scores [K, S] with every vector."""


@dataclass(frozen=True)
class StoredGenerator(Generator):
    """A generator whose items lie in a store: what that finds for each interest is merged as ever.

    An item that a list holds is among the k best of some interest, whichever way lists are merged:
    so k of each are enough.
    """

    store: ItemStore

    def find_exactly(self, asked: Requests, k: int, exclude: Tensor | None = None) -> Listed:
        """What the store finds for raw requests."""
        vectors, weights, _ = self._queries_of(asked)
        known = Vocabulary(self.item_ids)
        scores = torch.full((len(vectors), k), float("-inf"))
        places = torch.full((len(vectors), k), -1)
        for row, (interests, shares) in enumerate(zip(vectors, weights, strict=True)):
            there = shares > 0
            hidden = [] if exclude is None else exclude[row][exclude[row] >= 0].tolist()
            seen = self.item_ids.take(pa.array(hidden, pa.int64())).to_pylist()
            ids, own = self.store.nearest(interests[there].numpy(), k, seen)
            listed = torch.from_numpy(known.encode(pa.array(ids, self.item_ids.type)) - 1)
            order = listed.argsort()  # of items that score alike the first comes first
            by_interest = torch.full((len(there), len(ids)), float("-inf"))
            by_interest[there] = torch.from_numpy(own)[:, order].float()
            merge = MERGES[self.record.merge]
            best, columns = merge.top_k(by_interest[None], shares[None], min(k, len(ids)))
            filled = best[0] > float("-inf")
            scores[row, : len(filled)] = best[0]
            places[row, : len(filled)] = listed[order][columns[0]].masked_fill(~filled, -1)
        return Listed(scores, places, (places >= 0).long())


def storable(source: Source, what: str) -> GeneratorSource:
    """The source as a generator with vectors. Raises DataError for what has none."""
    generator = generator_of(source, what)
    if generator.record.items == "rows":
        raise DataError(
            f"the generator {source.name} of {source.bundle.folder}, {source.model}, has no item "
            f"vectors, of which {what} is made: it scores all items itself; `recsys bundle "
            "convert --to onnx` writes what does so"
        )
    return generator


def check_store(source: GeneratorSource, store: ItemStore, what: str) -> None:
    """Ask a store the golden requests.

    Raises DataError, which names `what` it is, where an answer is not the training stack's.
    """
    parts = {name: getattr(source.generator, name) for name in Generator.__dataclass_fields__}
    source.check_generator(StoredGenerator(**parts, store=store), what)


def measured(
    source: GeneratorSource, indexed: ItemStore, exact: ItemStore, least_recall: float
) -> float:
    """Share of what exact search finds for the golden requests that an index finds, too.

    Raises DataError where it is less than `least_recall`.
    """
    queries = source.generator.queries(source.asked)
    golden = source.generator.golden().column(EXPECTED_ITEMS).to_pylist()
    k, shares = max(len(ids) for ids in golden), []
    for vectors, weights in zip(queries.vectors, queries.weights, strict=True):
        for vector in vectors[weights > 0].numpy():
            wanted, _ = exact.nearest(vector[None], k, [])
            known, _ = indexed.nearest(vector[None], k, [])
            shares.append(len({*wanted} & {*known}) / len(wanted))
    share = float(np.mean(shares))
    if share < least_recall:
        raise DataError(
            f"the index finds {share:.3f} of the exact lists, less than --least-recall "
            f"{least_recall}: load the items without --hnsw, or ask for less"
        )
    return share
