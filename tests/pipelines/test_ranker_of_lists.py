"""A ranker's run on lists as they were shown: figures, orders that cost nothing, and the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from feature_store.errors import ConfigError
from pipelines.run import run
from recsys.config import parse_config
from recsys.evaluation.shown_lists import AS_DISPLAYED, FIGURES, MOST_RECENT_FIRST
from recsys.runs.finished import Run
from recsys.runs.verdict import VERDICT

Tree = dict[str, Any]
LISTS = {
    "data": {"source": "synthetic", "users": 60, "items": 60, "clusters": 4, "events": 12,
             "lists": True, "position_bias": 1.0},
    "split": {"protocol": "last_lists"},
    "ranker": {"name": "pooling", "width": 4, "hidden": [8], "max_length": 4, "listwise": 0.5,
               "position": True, "mixed_places": True, "compared": ["price"], "logs": ["price"]},
    "reader": {"batch_size": 256},
    "trainer": {"epochs": 1, "device": "cpu"},
    "evaluation": {"replicates": 100},
}  # fmt: skip


def tree_of_lists(tree_of: Callable[..., Tree], output: Path, **sections: Any) -> Tree:
    tree = tree_of(output, **LISTS, **sections)
    del tree["retriever"], tree["baselines"]
    return tree


@pytest.fixture(scope="module")
def finished(
    tree_of: Callable[..., Tree],
    tmp_path_factory: pytest.TempPathFactory,
    drawing: Callable[[], AbstractContextManager[None]],
) -> Run:
    with drawing():
        return run(tree_of_lists(tree_of, tmp_path_factory.mktemp("runs")))


def test_figures_are_those_of_the_lists_beside_them(finished: Run) -> None:
    results = finished.results
    assert results["protocol"] == "last_lists-shown"
    assert list(results["rankers"]) == [
        "pooling",
        "pooling_as_shown",
        AS_DISPLAYED,
        MOST_RECENT_FIRST,
    ]
    for name, summary in results["rankers"].items():
        lists = pd.read_parquet(finished.files.list_figures_of(name))
        assert lists["list"].is_unique and lists["MRR"].notna().sum() == summary["lists"]
        for figure in FIGURES:
            assert lists[figure].mean() == pytest.approx(summary["metrics"][figure])
            low, high = summary["ci95"][figure]
            assert low < summary["metrics"][figure] < high
    rows = pd.read_parquet(finished.files.predictions_of("pooling"))
    assert lists["length"].sum() == len(rows)
    assert "MRR" in repr(finished)


def test_the_displayed_order_is_the_log_s(finished: Run) -> None:
    """From the log itself: the last fifth of the sessions by their first events."""
    store = parse_config(finished.config).store_folder
    log = pd.concat(pd.read_parquet(path) for path in sorted(store.rglob("events/**/*.parquet")))
    shown = log[log["list_id"].notna()].sort_values(["list_id", "place"])
    firsts = shown.groupby("list_id").agg({"time": "min", "position": "min"})
    order = firsts.sort_values(["time", "position"]).index
    test = shown[shown["list_id"].isin(order[-int(-(-len(order) // 5)) :])]
    ranks = test[test["clicked"] == 1].groupby("list_id")["place"].min()
    figures = finished.metrics.loc[AS_DISPLAYED]
    assert figures["MRR"] == pytest.approx((1 / ranks).mean())


def test_the_epoch_is_chosen_by_mrr_and_the_model_held_against_both_orders(finished: Run) -> None:
    record = json.loads(finished.files.training_record.read_text())
    assert record["best"] == max(epoch["MRR"] for epoch in record["history"])
    outcome = finished.results[VERDICT]
    assert outcome["metric"] == "MRR" and set(outcome["against"]) == {
        AS_DISPLAYED,
        MOST_RECENT_FIRST,
    }
    assert outcome["lists"] == finished.results["rankers"]["pooling"]["lists"]
    html = finished.files.report.read_text()
    assert f"over {outcome['lists']:,} lists" in html and "list by list" in html
    mrr = finished.metrics.loc[MOST_RECENT_FIRST, "MRR"]
    assert f'data-metric="MRR" data-value="{mrr}"' in html and "Lists judged" in html


def test_what_ranks_no_lists_says_so(tree_of: Callable[..., Tree], tmp_path: Path) -> None:
    retriever = tree_of(tmp_path, split={"protocol": "last_lists"})
    with pytest.raises(ConfigError, match=r"split\.candidates: lists as they were shown"):
        parse_config(retriever)
    tree = tree_of_lists(tree_of, tmp_path)
    tree["split"] = {"protocol": "global_time"}
    tree["trainer"] = {"metric": "ListAUC"}
    with pytest.raises(ConfigError, match=r"or split\.candidates = 'shown'"):
        parse_config(tree)
    tree["split"]["candidates"] = "shown"
    assert parse_config(tree).metric == "ListAUC"
