"""Bundle: a folder that answers equally without the training stack.

manifest.json       what is in here, checksums, versions, figures
schema.json         the log's schema
vocabulary/*.arrow  raw ids of every input
user_tower.pt2      torch.export: request tensors -> vectors and weights of interests
items.npy           vectors [n, D] of the candidates, and item_ids.arrow their raw ids; where
                    the tower scores all D item rows itself, the rows [n] of the candidates
catalogue.parquet   what people read about items
users.parquet       the newest history and features of known users
golden.parquet      requests with the training stack's answers, replayed on loading
index.faiss         where the index is approximate
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import TypeAdapter
from torch import Tensor

from feature_store.errors import DataError
from feature_store.schema import Schema
from feature_store.vocabulary import Vocabulary
from recsys.inputs import Input, from_json
from recsys.lists.merging import Merge
from recsys.lists.search import search
from recsys.serving.files import read_manifest
from recsys.serving.index.base import Index, Queries
from recsys.serving.index.kinds import load_index
from recsys.serving.index.options import IndexConfig

EXPECTED_ITEMS, EXPECTED_SCORES = "expected_items", "expected_scores"
_INDEX: TypeAdapter[IndexConfig] = TypeAdapter(IndexConfig)
_TOLERANCE = 1e-3  # of scores, between the eager model and the exported one


@dataclass
class Bundle:
    """An opened bundle; `open` verifies it."""

    folder: Path
    manifest: dict[str, Any]
    schema: Schema
    inputs: tuple[Input, ...]
    vocabularies: dict[str, Vocabulary]
    tower: torch.nn.Module
    items: Tensor
    item_ids: pa.Array
    index: Index

    @property
    def space(self) -> str:
        """Names the space in which this bundle's vectors live."""
        return str(self.manifest["space"])

    @property
    def merge(self) -> Merge:
        """How what the interests find becomes one list; bundles that do not say so go by score."""
        found: Merge = self.manifest.get("merge", "score")
        return found

    @classmethod
    def open(cls, folder: Path | str) -> Bundle:
        """Read a bundle and check its files against the manifest.

        Raises DataError naming the file that is missing, altered or of another format.
        """
        folder = Path(folder)
        manifest = read_manifest(folder, "retriever")
        schema = Schema.load(folder / "schema.json")
        inputs = tuple(from_json(asked) for asked in manifest["inputs"])
        vocabularies = {
            name: Vocabulary.load(folder / "vocabulary" / f"{schema[name].table_name}.arrow")
            for name in manifest["vocabularies"]
        }
        items = torch.from_numpy(np.load(folder / "items.npy"))
        return cls(
            folder=folder,
            manifest=manifest,
            schema=schema,
            inputs=inputs,
            vocabularies=vocabularies,
            tower=torch.export.load(str(folder / "user_tower.pt2")).module(),
            items=items,
            item_ids=Vocabulary.load(folder / "item_ids.arrow").values,
            index=load_index(
                folder,
                items,
                manifest["space"],
                _INDEX.validate_python(manifest["index"]["config"]),
            ),
        )

    def queries(self, inputs: dict[str, Tensor]) -> Queries:
        """What users look for, from request tensors."""
        with torch.no_grad():
            vectors, weights = self.tower(inputs)
        return Queries(vectors, weights, self.space)

    def golden(self) -> pa.Table:
        """Requests and the training stack's answers to them."""
        return pq.read_table(self.folder / "golden.parquet", partitioning=None)

    def check_golden(self, inputs: dict[str, Tensor], exclude: Tensor) -> None:
        """Replay the golden requests by exact search.

        Raises DataError naming the first request whose answer is not the training stack's.
        """
        golden = self.golden()
        expected_ids = golden.column(EXPECTED_ITEMS).to_pylist()
        expected_scores = golden.column(EXPECTED_SCORES).to_pylist()
        vectors, weights, _ = self.queries(inputs)
        k = max(len(ids) for ids in expected_ids)
        scores, places = search(vectors, weights, self.items, k, exclude, self.merge)
        for row, (ids, wanted) in enumerate(zip(expected_ids, expected_scores, strict=True)):
            kept = places[row][places[row] >= 0]
            found = self.item_ids.take(pa.array(kept.numpy())).to_pylist()
            got = scores[row][: len(found)].tolist()
            if not same_list(ids, wanted, found, got):
                raise DataError(
                    f"{self.folder}: golden request {row} answers {found[:5]}..., "
                    f"the training stack answered {ids[:5]}...: do not serve it, export again"
                )


def same_list(
    ids: list[Any], scores: list[float], other_ids: list[Any], other_scores: list[float]
) -> bool:
    """Whether two answers are the same list, up to the order of items with equal scores.

    Scores may differ by `_TOLERANCE` of the largest; an item may stand elsewhere only among
    items whose scores are that close, and at the end of the list may be replaced by such a one.
    """
    if len(ids) != len(other_ids):
        return False
    if not ids:
        return True
    slack = _TOLERANCE * max(1.0, max(abs(s) for s in scores))
    place = {item: i for i, item in enumerate(ids)}
    for i, (item, score) in enumerate(zip(other_ids, other_scores, strict=True)):
        there = scores[place[item]] if item in place else scores[-1]
        if abs(scores[i] - score) > slack or abs(there - score) > slack:
            return False
    return True
