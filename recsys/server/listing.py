"""Places and scores as the items that people know."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from recsys.server.models import Item
from recsys.serving.catalogue import ItemCatalogue


def items_of(
    item_ids: pa.Array, catalogue: ItemCatalogue, places: np.ndarray, scores: np.ndarray
) -> list[list[Item]]:
    """B lists of items from places [B, k], -1 for none, and scores [B, k]."""
    there = places >= 0
    flat = places[there]
    ids = item_ids.take(pa.array(flat)).to_pylist()
    values = scores[there].tolist()
    items: list[Item]
    if catalogue.has_titles:
        titles = catalogue.titles(torch.from_numpy(flat)).to_pylist()
        items = [
            {"item": item, "score": score, "title": title}
            for item, score, title in zip(ids, values, titles, strict=True)
        ]
    else:
        items = [{"item": item, "score": score} for item, score in zip(ids, values, strict=True)]
    ends = np.cumsum(there.sum(1)).tolist()
    return [items[first:last] for first, last in zip([0, *ends], ends, strict=False)]
