"""Places and scores as the items that people know."""

from __future__ import annotations

from typing import Any, cast

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
    columns: dict[str, list[Any]] = {
        "item": item_ids.take(pa.array(flat.numpy())).to_pylist(),
        "score": scores[there].tolist(),
    }
    if catalogue.has_titles:
        columns["title"] = catalogue.titles(flat).to_pylist()
    if origins is not None:
        columns["origin"] = origins.to_pylist()
    names = tuple(columns)
    items = [
        cast(Item, dict(zip(names, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    ]
    ends = there.sum(1).cumsum(0).tolist()
    return [items[first:last] for first, last in zip([0, *ends], ends, strict=False)]
