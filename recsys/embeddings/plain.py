"""The serving side of Embeddings: the same vectors from plain tables, without TorchRec."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from recsys.embeddings.hashing import code_rows, row_map, unknown_row
from recsys.embeddings.layout import Layout, Lookup
from recsys.embeddings.managed import managed_rows


class RowMaps(nn.Module):
    """Physical rows of the ids of hashed tables, [V] for each salt, hashed once and for all; codes
    of ids without a vocabulary are hashed when they are read. `managed` are the maps of evicting
    tables, which know the ids that have rows."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._names: dict[int, str] = {}  # by salt
        self._unknown: dict[int, int] = {}  # row, by salt
        self.managed = managed_rows(layout)
        for name, lookups in layout.lookups.items():
            feature = layout.features[name]
            for lookup in lookups:
                if lookup.salt is None or lookup.salt in self._names:
                    continue
                if feature.keyed:
                    self._unknown[lookup.salt] = unknown_row(lookup.salt, lookup.rows)
                    continue
                keys = (
                    torch.arange(1, feature.rows)
                    if feature.vocabulary is None
                    else torch.from_numpy(feature.vocabulary.keys)
                )
                self._names[lookup.salt] = f"map_{len(self._names)}"
                rows = row_map(keys, lookup.salt, lookup.rows)
                self.register_buffer(self._names[lookup.salt], rows, persistent=False)

    def forward(self, lookup: Lookup, ids: Tensor) -> Tensor:
        """Physical rows, of the shape of `ids` (rows of the vocabulary, or codes)."""
        if lookup.table in self.managed:
            held: Tensor = self.managed[lookup.table](ids)
            return held
        if lookup.salt is None:
            return ids
        if lookup.salt in self._unknown:
            return code_rows(ids, lookup.salt, lookup.rows, self._unknown[lookup.salt])
        rows: Tensor = getattr(self, self._names[lookup.salt])
        return rows[ids]


def lookups_by(layout: Layout, tables: set[str]) -> list[Lookup]:
    """The lookups that read any of `tables`, in the layout's order."""
    every = (lookup for lookups in layout.lookups.values() for lookup in lookups)
    return [lookup for lookup in every if lookup.table in tables]


def combine(
    layout: Layout, probes: dict[str, Tensor], ids: dict[str, Tensor], bags: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Concatenate each feature's `probes`, vectors by the keys of their lookups; average bags whose
    table also serves single ids."""
    out = {}
    for name in (*ids, *bags):
        vectors = torch.cat([probes[lookup.key] for lookup in layout.lookups[name]], dim=-1)
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
    """A plain module for every table: rows [...] -> vectors [..., W] of float32.

    With `nn.Embedding`s of the same weights, the same results as `Embeddings`.
    """

    def __init__(self, layout: Layout, tables: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.layout = layout
        self.maps = RowMaps(layout)
        self.tables = nn.ModuleDict(tables)

    def forward(
        self, ids: dict[str, Tensor], bags: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """As `Embeddings.forward`."""
        bags = bags or {}
        probes = {}
        for name, rows in {**ids, **bags}.items():
            for lookup in self.layout.lookups[name]:
                probes[lookup.key] = self.tables[lookup.table](self.maps(lookup, rows))
        return combine(self.layout, probes, ids, bags)
