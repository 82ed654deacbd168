"""What is said of tables, against counting one by one."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from recsys.embeddings.inspection import inspect_features, inspect_tables
from recsys.embeddings.layout import FeatureSpec, make_layout
from recsys.embeddings.options import Hashed, PerFeature, Unified
from recsys.embeddings.plain import RowMaps
from recsys.embeddings.tables import Embeddings

FEATURES = [
    FeatureSpec("item", "item", 50),
    FeatureSpec("liked", "item", 50, pooled=True),  # shares the items' rows
    FeatureSpec("country", "country", 9),
]
CONFIGS = {
    "per_feature": PerFeature(),
    "hashed": Hashed(budget_mb=0.0012),
    "unified": Unified(budget_mb=0.0012, probes=2),
    "few_tables": Unified(budget_mb=0.0012, unified_tables=2),
}


@pytest.mark.parametrize("name", list(CONFIGS))
def test_collisions_are_counted(name: str) -> None:
    layout = make_layout(FEATURES, 8, CONFIGS[name])
    maps = RowMaps(layout)
    places = {  # of every id: its rows
        feature: [
            tuple((one.table, int(maps(one, torch.tensor(i)))) for one in layout.lookups[feature])
            for i in range(layout.features[feature].rows)
        ]
        for feature in ("item", "country")
    }
    found = {one.feature: one for one in inspect_features(layout)}
    assert list(found) == ["item", "country"]
    for feature, other in (("item", "country"), ("country", "item")):
        alike = Counter(places[feature])
        taken = {row for rows in places[other] for row in rows}
        own = Counter(place for rows in places[feature] for place in enumerate(rows))
        ids = places[feature]
        one = found[feature]
        assert one.ids == len(ids) and one.probes == len(ids[0])
        assert one.alike == pytest.approx(sum(alike[rows] > 1 for rows in ids) / len(ids))
        assert one.within == pytest.approx(
            sum(any(own[place] > 1 for place in enumerate(rows)) for rows in ids) / len(ids)
        )
        assert one.between == pytest.approx(
            sum(any(row in taken for row in rows) for rows in ids) / len(ids)
        )
    exact = name == "per_feature"
    assert (found["item"].within == found["item"].between == 0) == exact
    if name == "hashed":
        assert found["item"].between == 0 < found["item"].alike


@pytest.mark.parametrize("name", list(CONFIGS))
def test_dead_rows_and_norms(name: str) -> None:
    layout = make_layout(FEATURES, 8, CONFIGS[name])
    embeddings = Embeddings(layout, seed=3)
    found = inspect_tables(embeddings.plain())
    maps = RowMaps(layout)
    for one, table in zip(found, layout.tables, strict=True):
        rows = {
            int(row)
            for feature, lookups in layout.lookups.items()
            for lookup in lookups
            if lookup.table == table.name
            for row in maps(lookup, torch.arange(layout.features[feature].rows))
        }
        assert one.dead == pytest.approx(1 - len(rows) / table.rows)
        norms = embeddings.tables[table.name].weight[sorted(rows)].norm(dim=1)  # type: ignore[index, union-attr]
        expected = torch.quantile(norms, torch.tensor([0.05, 0.5, 0.95])).tolist()
        assert one.norms == pytest.approx(expected, rel=1e-5)
    assert (max(one.dead for one in found) == 0) == (name == "per_feature")
