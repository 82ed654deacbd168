"""What a store finds for each interest becomes the list that exact search makes of all items."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from feature_store.errors import DataError
from recsys.formats.source import source_of
from recsys.formats.store import ItemStore, StoredGenerator, storable
from recsys.lists.merging import MERGES
from recsys.lists.search import search


class InMemory(ItemStore):
    """Exact, and in an order of its own."""

    def __init__(self, ids: list[str], items: np.ndarray) -> None:
        self.ids, self.items = ids, items

    def nearest(self, vectors: np.ndarray, k: int, seen: list[Any]) -> tuple[list[Any], np.ndarray]:
        scores = vectors @ self.items.T
        left = np.array([place for place, id in enumerate(self.ids) if id not in seen], int)
        best = {place for row in scores for place in left[np.argsort(-row[left])[:k]].tolist()}
        places = sorted(best, reverse=True)
        return [self.ids[place] for place in places], scores[:, places]


@pytest.mark.parametrize("name", list(MERGES))
def test_lists_of_interests_are_merged_as_those_of_all_items(name: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(30, 4, generator=generator)
    vectors = torch.randn(20, 3, 4, generator=generator)
    weights = torch.tensor([[3.0, 2, 4]]).expand(20, 3).clone()
    if name != "rounds":  # whose weights are the same for all
        weights[::2, 1] = 0
    seen = torch.full((20, 30), -1)
    seen[::2, :3] = torch.tensor([1, 5, 29])
    seen[7] = torch.arange(30)  # nothing is left for this one
    record = SimpleNamespace(merge=name, inputs=(), space="")
    ids = pa.array([f"i{place}" for place in range(30)])
    stored = StoredGenerator(
        *(None, "generator", record, lambda inputs: (vectors, weights)),  # type: ignore[arg-type]
        *(items, ids, None, None),  # type: ignore[arg-type]
        store=InMemory(ids.to_pylist(), items.numpy()),
    )
    for k in (1, 7, 30):  # with 30 the lists end where nothing is left
        scores, places = search(vectors, weights, items, k, seen, MERGES[name])
        found = stored.find_exactly(None, k, seen)  # type: ignore[arg-type]
        torch.testing.assert_close(found.scores, scores)
        assert torch.equal(found.places, places)


def test_what_has_no_vectors_is_not_stored(bundled: Any) -> None:
    with pytest.raises(DataError, match=r"planted, has no item vectors.*--to onnx"):
        storable(source_of(bundled("ease")), "a table")
