"""A log whose columns are called anything goes from raw files to an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipelines.run import run

USER, ITEM, WHEN, TITLE = "Größe 名", "item.id", "_row", "a b/c"
OF_EVENTS = ("role", "Position", "brand.name")
OF_ITEMS = ("brand.name", "price/unit", "Age", "age", "position", "train_events", "values", "#")
OF_USERS = ("role", "AGE", "history", " ", "label", "_at", 'a"b')


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everyone walks around twelve items, from a place of their own."""
    folder = tmp_path_factory.mktemp("odd [names] 1")
    users, items = [f"u{n:02d}" for n in range(24)], [f"i{n:02d}" for n in range(12)]
    rows = [(u, items[(n + 5 * s) % 12], 86_400 * s) for n, u in enumerate(users) for s in range(6)]
    events = pd.DataFrame(rows, columns=[USER, ITEM, WHEN])
    events["liked!"] = [float((n + n // 6) % 2) for n in range(len(events))]
    for place, name in enumerate(OF_EVENTS):
        events[name] = [f"{place}{n % 3}" for n in range(len(events))]
    events.to_parquet(folder / "events.parquet")
    for key, ids, names in ((ITEM, items, OF_ITEMS), (USER, users, OF_USERS)):
        table = pd.DataFrame({key: ids})
        for place, name in enumerate(names):
            table[name] = [(n + place) % 4 for n in range(len(ids))]
        if key == ITEM:
            table[TITLE] = [f"Title [{n}]" for n in range(len(ids))]
        table.to_parquet(folder / f"{key[:2]}.parquet")
    return {
        "source": "parquet",
        "path": str(folder / "events.parquet"),
        "columns": {"user": USER, "item": ITEM, "time": WHEN, "label": "liked!"},
        "features": list(OF_EVENTS),
        "items": str(folder / f"{ITEM[:2]}.parquet"),
        "users": str(folder / f"{USER[:2]}.parquet"),
        "title": TITLE,
        "kinds": {"Age": "dense", "price/unit": "dense", "AGE": "dense"},
    }


def tree_of(data: dict[str, Any], output: Path, name: str, **model: Any) -> dict[str, Any]:
    return {
        "name": name,
        "output": str(output),
        "store": str(output.parent / "store"),
        "data": data,
        "split": {"protocol": "leave_one_out"},
        "reader": {"batch_size": 16},
        "trainer": {"epochs": 1, "device": "cpu"},
        "evaluation": {"ks": [3, 10], "replicates": 100},
        "tracking": {"enabled": False},
        "export": {"golden": 2},
        **model,
    }


@pytest.mark.parametrize(
    "model",
    [
        {"retriever": {"name": "item_knn"}, "baselines": []},
        {
            "retriever": {
                "name": "two_tower",
                "width": 4,
                "user_features": ["user_role", "user_AGE", "at"],
                "item_features": [
                    "item_brand_name",
                    "price_unit",
                    "Age",
                    "item_age",
                    "item_values",
                ],
            },
            "baselines": [],
        },
        {"ranker": {"name": "dcn", "width": 4, "hidden": [4]}},
    ],
    ids=["item_knn", "two_tower", "dcn"],
)
def test_from_raw_files_to_an_answer(
    data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, model: dict[str, Any]
) -> None:
    output = tmp_path_factory.getbasetemp() / "odd runs"
    kind, options = next(iter(model.items()))
    made = run(tree_of(data, output, options["name"], **model))
    assert made.metrics.shape[0] == 1 and (made.bundle / "manifest.json").exists()
    if kind == "ranker":
        return
    answers = made.recommend(["u03"], k=2)
    assert len(answers) == 2
    assert answers["title"].str.fullmatch(r"Title \[\d+\]").all()
