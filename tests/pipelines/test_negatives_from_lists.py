"""Negatives from the lists of a finished run: what it finds for the past of each row."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pytest
import torch

from feature_store.errors import ConfigError, DataError
from feature_store.event_log import EventLog
from pipelines.ingest import ingest_log
from pipelines.train import train
from recsys.config import RunConfig, parse_config
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.lists.pairs import Pairs
from recsys.retrievers.base import Retriever
from recsys.runs.calibration import log_draws_of
from recsys.runs.fit import trained_model
from recsys.runs.prepare import prepare

Tree = dict[str, Any]
BUDGET, DRAWN, DAY = 7, 3, 24 * 3600
SPLIT = {"protocol": "global_time", "event_types": ["click", "purchase"]}
POOLING = {"name": "pooling", "width": 4, "hidden": [8], "max_length": 500, "delay_days": 1}


@pytest.fixture(scope="module")
def base(tree_of: Callable[..., Tree], tmp_path_factory: pytest.TempPathFactory) -> Tree:
    folder = tmp_path_factory.mktemp("listed")
    data = {"source": "synthetic", "users": 50, "items": 40, "clusters": 4, "events": 12}
    knn = {"name": "item_knn"}
    return tree_of(folder, name="knn", data=data, split=SPLIT, retriever=knn, baselines=[])


@pytest.fixture(scope="module")
def knn(base: Tree) -> RunConfig:
    config = parse_config(base)
    ingest_log(config)
    train(config)
    return config


def beside(base: Tree, run: Path, name: str = "beside", **sections: Any) -> RunConfig:
    """A ranker beside items of the run's lists."""
    lists = {"run": str(run), "budget": BUDGET}
    negatives = {"per_positive": DRAWN, "lists": lists, **sections.pop("negatives", {})}
    tree = {key: part for key, part in base.items() if key not in ("retriever", "baselines")}
    tree |= {"name": name, "labels": {"negatives": negatives}, "ranker": POOLING}
    return parse_config(tree | sections)


@pytest.fixture(scope="module")
def ranker(base: Tree, knn: RunConfig) -> RunConfig:
    config = beside(base, knn.folder)
    prepare(config)
    return config


def rows_of(examples: Examples, role: str) -> pd.DataFrame:
    return pd.read_parquet(examples.folder / f"{role}.parquet")


def events_of(config: RunConfig, examples: Examples, types: list[str] | None) -> pd.DataFrame:
    """Rows of users and items, and seconds, of the log."""
    log = pd.read_parquet(EventLog.open(config.store_folder).folder / "events")
    log = log if types is None else log[log["event_type"].isin(types)]
    for name in ("user_id", "item_id"):
        log[name] = examples.vocabulary(name).encode(pa.array(log[name]))
    return log.assign(time=log["time"].astype("datetime64[s]").astype(int))


@pytest.mark.parametrize(("shown", "repeats"), [(False, True), (True, False)])
def test_they_are_what_the_run_finds_for_the_past_of_each_row(
    base: Tree, knn: RunConfig, shown: bool, repeats: bool
) -> None:
    """A day before it in training. Where the ranker's log holds what was shown, too, the run is
    asked with the clicks and purchases that it has learned from."""
    options: Tree = {"negatives": {"repeats": repeats}}
    if shown:
        clicks = {"had": {"event_types": ["click", "purchase"]}}
        options |= {
            "split": {"protocol": "global_time"},
            "ranker": {**POOLING, "histories": clicks},
        }
    examples = prepare(beside(base, knn.folder, f"past_{shown}_{repeats}", **options))
    model, known = trained_model(knn)
    finder = cast(Retriever, model)
    assert known.vocabulary("item_id").fingerprint == examples.vocabulary("item_id").fingerprint
    finder.prepare(examples.candidates())
    log = events_of(knn, examples, None if shown else SPLIT["event_types"])
    own = log.groupby("user_id")["item_id"].agg(set)
    at_once = log.groupby(["user_id", "time"])["item_id"].agg(set)
    first = log.groupby("item_id")["time"].min()
    many = deepest = 0
    for role in ("train", "validation", "test"):
        rows = rows_of(examples, role).reset_index(drop=True)
        positives = rows[rows["label"] == 1]
        past = positives["had" if shown else "history"]
        pairs = pa.table(
            {"history": past.tolist()}, schema=pa.schema({"history": pa.list_(pa.int64())})
        )
        batch = Block.of(pairs).to_batch()
        seen = batch.jagged("history")
        hidden = None if repeats else Pairs.of_lists(seen.values(), seen.lengths())
        lists = finder.retrieve(batch, BUDGET, hidden).ids.tolist()
        for place, items, history in zip(positives.index, lists, past, strict=True):
            user, time = rows.at[place, "user_id"], rows.at[place, "time"]
            taken = at_once[user, time] if repeats else own[user]
            possible = {
                i for i in items if len(history) and i not in {0, *taken} and first[i] < time
            }
            drawn = rows.loc[place + 1 : place + DRAWN]
            drawn = drawn[(drawn["label"] == 0) & (drawn["time"] == time)]
            if possible:
                assert len(drawn) == DRAWN and set(drawn["item_id"]) <= possible
                many += len(set(drawn["item_id"])) > 1
                deepest += items[-1] in set(drawn["item_id"])
    assert many > 60 and deepest > 30, (many, deepest)


def test_figures_say_which_lists_they_are_beside(
    base: Tree, knn: RunConfig, ranker: RunConfig
) -> None:
    """The same of the same run elsewhere, others where it has learned otherwise. A run that is gone
    leaves examples as they are."""
    moved, gone = (knn.folder.parent / name for name in ("moved", "gone"))
    shutil.copytree(knn.folder, moved)

    def fingerprint(**lists: Any) -> str:
        lists = {"run": str(moved), "budget": BUDGET, **lists}
        return prepare(beside(base, moved, "asked", negatives={"lists": lists})).summary.fingerprint

    prints = [fingerprint(budget=6), fingerprint()]
    assert prints[1] == prepare(ranker).summary.fingerprint
    shutil.move(moved, gone)
    assert fingerprint() == prints[1]
    with pytest.raises(DataError, match=r"lists\.run: .*moved is not a run: it has no config"):
        fingerprint(budget=8)
    shutil.move(gone, moved)
    text = (moved / "config.toml").read_text()
    (moved / "config.toml").write_text(re.sub("shrinkage = .*", "shrinkage = 3.0", text))
    assert len({*prints, fingerprint()}) == 3


def test_what_their_draws_add_is_undone_for_items_of_lists(ranker: RunConfig) -> None:
    """Three draws of seven items each."""
    drawn = log_draws_of(ranker, prepare(ranker))
    assert drawn is not None
    torch.testing.assert_close(drawn, torch.full_like(drawn, math.log(DRAWN / BUDGET)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": "nowhere"}, r"lists\.run: nowhere is not a run"),
        ({"split": {**SPLIT, "test_days": 20, "validation_days": 3}},
         r"lists\.run: .* was trained on [\d,]+ events that are the test"),
        ({"split": {**SPLIT, "event_types": ["purchase"]}},
         r"lists 'history' of events click, purchase, and this run has events purchase: set split"),
        ({"data": {"source": "synthetic", "users": 51}}, r"knn is of another event log"),
        ({"run": "ranker"}, r"is no run of a \[retriever\]"),
        ({"run": "stopped"}, r"stopped was not trained: run `recsys run"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_the_option(
    base: Tree, knn: RunConfig, ranker: RunConfig, change: Tree, message: str
) -> None:
    run = Path(change.pop("run", knn.folder))
    if run.name in ("ranker", "stopped"):
        folder = knn.folder.parent / run.name
        folder.mkdir(exist_ok=True)
        of = ranker if run.name == "ranker" else knn
        made = of.model_copy(update={"name": run.name})
        (folder / "config.toml").write_text(made.to_toml())
        run = folder
    config = beside(base, run, "wrong", **change)
    if "data" in change:
        ingest_log(config)
    with pytest.raises((ConfigError, DataError), match=message):
        prepare(config)
    assert not (config.folder / "examples").exists()
