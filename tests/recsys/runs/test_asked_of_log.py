"""Columns that a log does not have are refused before anything is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from feature_store.errors import ConfigError
from pipelines.ingest import ingest_log
from recsys.config import parse_config
from recsys.runs.asked_of_log import check_log

SASREC = {"retriever": {"name": "sasrec"}}
DCN = {"ranker": {"name": "dcn", "context_features": ["colour"]}}


def config(tmp_path: Path, **sections: Any) -> Any:
    data = {"source": "synthetic", "users": 50, "items": 20, "clusters": 4}
    return parse_config({"name": "x", "output": str(tmp_path / "runs"), "data": data, **sections})


@pytest.mark.parametrize(
    ("sections", "fragments"),
    [
        (
            SASREC | {"evaluation": {"slice_columns": ["brand", "nope"]}},
            ("evaluation.slice_columns: 'nope'", "country, age_band, brand, category, keywords"),
        ),
        (SASREC | {"evaluation": {"slice_columns": ["user_id"]}}, ("slice_columns: 'user_id'",)),
        (SASREC | {"evaluation": {"slice_columns": ["list_price"]}}, ("slice_columns: 'list_p",)),
        (SASREC | {"evaluation": {"slice_columns": ["event_type"]}}, ("slice_columns: 'event_",)),
        (
            SASREC | {"evaluation": {"category": "country"}},
            ("evaluation.category: 'country'", "brand, category, keywords"),
        ),
        (
            {"retriever": {"name": "two_tower", "item_features": ["brand", "colour"]}},
            ("retriever.item_features names colour", "list_price"),
        ),
        (
            {"retriever": {"name": "two_tower", "user_features": ["brand"]}},
            ("retriever.user_features names brand", "age_band"),
        ),
        (
            SASREC | {"export": {"fallback": {"by": "brand"}}},
            ("export.fallback.by: 'brand'", "country, age_band"),
        ),
        (DCN, ("ranker.context_features names colour", "clicked")),
    ],
)
def test_a_column_that_is_not_there(
    tmp_path: Path, sections: dict[str, Any], fragments: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        ingest_log(config(tmp_path, **sections))
    assert all(fragment in str(caught.value) for fragment in fragments), str(caught.value)
    assert list(tmp_path.iterdir()) == [], "no row was read for it"


def test_columns_that_are_there(tmp_path: Path) -> None:
    export = {"fallback": {"by": "country"}}
    asked = {"slice_columns": ["brand", "keywords", "country"], "category": "brand"}
    two_tower = {"name": "two_tower", "item_features": ["list_price"], "user_features": ["country"]}
    fits = config(tmp_path, retriever=two_tower, evaluation=asked, export=export)
    check_log(fits, fits.data.schema)
