"""The serving side of Embeddings: the same vectors from plain tables, without TorchRec."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.embeddings.layout import Layout, Lookup


def lookups_by(layout: Layout, tables: set[str]) -> list[Lookup]:
    """The lookups that read any of `tables`, in the layout's order."""
    return [one for found in layout.lookups.values() for one in found if one.table in tables]


def combine(
    layout: Layout, found: dict[str, Tensor], ids: dict[str, Tensor], bags: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Concatenate each feature's probes; average bags whose table also serves single ids."""
    out = {}
    for name in (*ids, *bags):
        vectors = torch.cat([found[one.key] for one in layout.lookups[name]], dim=-1)
        out[name] = (
            masked_mean(vectors, bags[name] != 0)
            if vectors.dim() == 3 and name in bags
            else vectors
        )
    return out


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """Mean over L of `vectors` [n, L, D] where `mask` [n, L]; zeros where nothing is there."""
    weights = mask.to(vectors.dtype).unsqueeze(-1)
    return (vectors * weights).sum(1) / weights.sum(1).clamp(min=1)


class PlainEmbeddings(nn.Module):
    """One `nn.Embedding` a table; same results as `Embeddings` with the same weights."""

    def __init__(self, layout: Layout, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.layout = layout
        self.tables = nn.ModuleDict(
            {t.name: nn.Embedding.from_pretrained(weights[t.name]) for t in layout.tables}
        )

    def forward(
        self, ids: dict[str, Tensor], bags: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """As `Embeddings.forward`."""
        bags = bags or {}
        found = {}
        for name, rows in {**ids, **bags}.items():
            for one in self.layout.lookups[name]:
                found[one.key] = self.tables[one.table](one(rows))
        return combine(self.layout, found, ids, bags)
