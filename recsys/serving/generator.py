"""Generator: the part of a bundle that finds items for users."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.columns import EXPECTED_ITEMS, EXPECTED_SCORES
from feature_store.errors import DataError
from feature_store.parquet import read_parquet
from feature_store.vocabulary import Vocabulary
from recsys.lists.merging import MERGES
from recsys.lists.search import search
from recsys.serving.bundle import Bundle
from recsys.serving.fallback import FALLBACK, Fallback
from recsys.serving.golden import GOLDEN, same_list
from recsys.serving.index.base import Index, Queries
from recsys.serving.index.kinds import load_index
from recsys.serving.manifest import GeneratorRecord

PROGRAM, ITEMS, ITEM_IDS = "user.pt2", "items.npy", "item_ids.arrow"


@dataclass(frozen=True)
class Generator:
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
        items = torch.from_numpy(np.load(file(ITEMS)))
        item_ids = Vocabulary.load(file(ITEM_IDS)).values
        _check_items(file(ITEMS), items, item_ids, record)
        fallback = None if record.fallback is None else Fallback.read(file(FALLBACK), item_ids)
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

    def search(
        self, queries: Queries, k: int, exclude: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(scores [B, k], places [B, k]) of the best items; `exclude` [B, L] is padded with -1.

        Raises DataError for queries of another space.
        """
        return self.index.search(queries, k, exclude, MERGES[self.record.merge])

    def golden(self) -> pa.Table:
        """Requests and the training stack's answers to them."""
        return read_parquet(self.bundle.part_file(self.name, GOLDEN))

    def check_golden(self, golden: pa.Table, inputs: dict[str, Tensor], exclude: Tensor) -> None:
        """Compare exact search for golden requests with their answers.

        Raises DataError naming the first request whose answer is not the training stack's.
        """
        vectors, weights, _ = self.queries(inputs)
        k = max(len(ids) for ids in golden.column(EXPECTED_ITEMS).to_pylist())
        merge = MERGES[self.record.merge]
        self._check_answers(golden, *search(vectors, weights, self.items, k, exclude, merge))

    def check_fallback(self, golden: pa.Table) -> None:
        """Compare the fallback with its golden answers, as `check_golden`.

        Raises DataError also where there are none.
        """
        if (self.fallback is None) != (golden.num_rows == 0):
            raise DataError(
                f"{self.bundle.folder}: its fallback and its golden requests do not belong "
                "together: do not serve it, export again"
            )
        if self.fallback is not None:
            k = max(len(ids) for ids in golden.column(EXPECTED_ITEMS).to_pylist())
            self._check_answers(golden, *self.fallback.top(golden.num_rows, k))

    def _check_answers(self, golden: pa.Table, scores: Tensor, places: Tensor) -> None:
        expected_ids = golden.column(EXPECTED_ITEMS).to_pylist()
        expected_scores = golden.column(EXPECTED_SCORES).to_pylist()
        for row, (ids, wanted) in enumerate(zip(expected_ids, expected_scores, strict=True)):
            kept = places[row][places[row] >= 0]
            answered = self.item_ids.take(pa.array(kept.numpy())).to_pylist()
            if not same_list(ids, wanted, answered, scores[row][: len(kept)].tolist()):
                raise DataError(
                    f"{self.bundle.folder}: golden request {row} answers {answered[:5]}..., "
                    f"the training stack answered {ids[:5]}...: do not serve it, export again"
                )


def _check_items(path: Path, items: Tensor, ids: pa.Array, record: GeneratorRecord) -> None:
    shape, kind = [record.candidates], torch.int64
    if record.items == "vectors":
        shape, kind = [record.candidates, record.width], torch.float32
    if list(items.shape) != shape or items.dtype != kind or len(ids) != record.candidates:
        raise DataError(
            f"{path} holds {items.dtype} {list(items.shape)} and {len(ids)} ids, the manifest says "
            f"{kind} {shape}: export the bundle again"
        )
