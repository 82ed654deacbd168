"""What became of a model's tables: collisions, norms of rows, rows that nobody reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from recsys.embeddings.layout import Layout
from recsys.embeddings.managed import ManagedRows
from recsys.embeddings.plain import PlainEmbeddings, RowMaps

_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class FeatureFacts:
    """A vocabulary and how its ids lie.

    Shares of ids: `alike` share the rows of all their probes with another id of the vocabulary, so
    that the two cannot be told apart; `within` share the row of one; `between` share a row with an
    id of another vocabulary, which a model can learn to tell apart. None where there is no list of
    ids: nobody knows who lies where.
    """

    feature: str
    table: str
    ids: int | None
    width: int
    probes: int
    alike: float | None
    within: float | None
    between: float | None


@dataclass(frozen=True)
class TableFacts:
    """A physical table: `dead` is the share of rows that no id has; norms of the others'
    vectors at the 5th, 50th and 95th percentile."""

    table: str
    rows: int
    width: int
    dead: float
    norms: tuple[float, float, float]


def inspect_features(layout: Layout) -> list[FeatureFacts]:
    """One entry a vocabulary, row 0 (unknown) included among the ids."""
    maps, seen = RowMaps(layout), set()
    facts: list[FeatureFacts] = []
    # by vocabulary: rows of each probe [probes, V], numbered over all tables
    rows_of: dict[str, np.ndarray] = {}
    starts = {t.name: s for t, s in zip(layout.tables, _starts(layout), strict=True)}
    for name, lookups in layout.lookups.items():
        spec = layout.features[name]
        if spec.table not in rows_of and not spec.keyed:
            ids = torch.arange(spec.rows)
            rows_of[spec.table] = np.stack(
                [maps(lookup, ids).numpy() + starts[lookup.table] for lookup in lookups]
            )
    total = sum(table.rows for table in layout.tables)
    readers = np.zeros(total, np.int64)  # vocabularies that read a row
    for rows in rows_of.values():
        readers[np.unique(rows)] += 1
    for name, lookups in layout.lookups.items():
        spec = layout.features[name]
        if spec.table in seen:
            continue
        seen.add(spec.table)
        width, probes = layout.width(name), len(lookups)
        if spec.keyed:
            facts.append(FeatureFacts(name, spec.table, None, width, probes, *[None] * 3))
            continue
        rows = rows_of[spec.table]
        _, inverse, counts = np.unique(rows, axis=1, return_inverse=True, return_counts=True)
        shared = np.stack([_shared(probe, total) for probe in rows])
        facts.append(
            FeatureFacts(
                feature=name,
                table=spec.table,
                ids=spec.rows,
                width=width,
                probes=probes,
                alike=float((counts[inverse.ravel()] > 1).mean()),
                within=float(shared.any(0).mean()),
                between=float((readers[rows] > 1).any(0).mean()),
            )
        )
    return facts


def inspect_tables(embeddings: PlainEmbeddings) -> list[TableFacts]:
    """One entry a physical table."""
    layout, maps, facts = embeddings.layout, embeddings.maps, []
    for table in layout.tables:
        used = torch.zeros(table.rows, dtype=torch.bool)
        for name, lookups in layout.lookups.items():
            spec = layout.features[name]
            for lookup in lookups:
                if lookup.table != table.name:
                    continue
                if table.name in maps.managed:
                    module = maps.managed[table.name]
                    assert isinstance(module, ManagedRows)
                    used[module.held] = True
                elif spec.keyed:  # any row may be read: nobody lists the ids
                    used[:] = True
                else:
                    used[maps(lookup, torch.arange(spec.rows))] = True
        with torch.no_grad():
            norms = embeddings.tables[table.name](used.nonzero().squeeze(1)).norm(dim=1)
        low, middle, high = np.quantile(norms.numpy(), _QUANTILES)
        dead = 1 - float(used.float().mean())
        norms_of = (float(low), float(middle), float(high))
        facts.append(TableFacts(table.name, table.rows, table.width, dead, norms_of))
    return facts


def _starts(layout: Layout) -> np.ndarray:
    rows = np.array([table.rows for table in layout.tables])
    return np.cumsum(rows) - rows


def _shared(rows: np.ndarray, total: int) -> np.ndarray:
    """Whether each entry occurs again."""
    return np.bincount(rows, minlength=total)[rows] > 1
