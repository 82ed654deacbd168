"""Places and scores as the items that people know."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from torch import Tensor

from recsys.server.models import Item
from recsys.serving.catalogue import ItemCatalogue


def items_of(
    item_ids: pa.Array,
    catalogue: ItemCatalogue,
    places: Tensor,
    scores: Tensor,
    origins: pa.Array | None = None,
) -> list[list[Item]]:
    """B lists of items from places [B, k], -1 for none, and scores [B, k]; the `origins` [m] are of
    those that are there, list after list."""
    there = places >= 0
    flat = places[there]
    ids: list[Any] = item_ids.take(pa.array(flat.numpy())).to_pylist()
    values: list[float] = scores[there].tolist()
    items: list[Item] = [{"item": i, "score": s} for i, s in zip(ids, values, strict=True)]
    if catalogue.has_titles:
        for item, title in zip(items, catalogue.titles(flat).to_pylist(), strict=True):
            item["title"] = title
    if origins is not None:
        for item, origin in zip(items, origins.to_pylist(), strict=True):
            item["origin"] = origin
    ends = there.sum(1).cumsum(0).tolist()
    return [items[first:last] for first, last in zip([0, *ends], ends, strict=False)]
