"""Rankers of several labels: clicks of everything shown, and purchases among clicks."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from conformance import fresh, learn, small, training
from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import ConfigError
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, write_examples
from feature_store.labels import LabelConfig, TaskConfig
from feature_store.protocols import TEST, Random
from feature_store.schema import Feature, Schema
from feature_store.splits import make_split
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.distributed import Group
from recsys.evaluation.predictions import Predictions
from recsys.export.bundle import write_bundle
from recsys.export.ranker import RankerExport
from recsys.export.sample_quality import sample_auc
from recsys.rankers.base import Ranker
from recsys.serving.manifest import About
from recsys.serving.scorer import Scorer

SCHEMA = Schema(
    user="user_id",
    item="item_id",
    label="clicked",
    event_type="kind",
    features=(
        Feature(name="user_id", kind="id", side="user", dtype="int64"),
        Feature(name="club", kind="id", side="user"),
        Feature(name="item_id", kind="id", side="item", dtype="int64"),
        Feature(name="genre", kind="id", side="item"),
        Feature(name="kind", kind="id", side="context"),
        Feature(name="clicked", kind="dense", side="context", dtype="float32"),
        Feature(name="kept", kind="dense", side="context", dtype="float32"),
    ),
)
TASKS = {
    "buy": TaskConfig(event_types=("purchase",), among=("click", "purchase")),
    "keep": TaskConfig(column="kept"),
}


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Even clubs click on even genres, odd on odd, and buy the genre of their own number. What is
    bought is kept by two of the four clubs."""
    folder, random = tmp_path_factory.mktemp("tasks"), np.random.default_rng(5)
    user, item = np.repeat(np.arange(90), 16), random.integers(0, 36, 90 * 16)
    clicked = user % 2 == item % 2
    bought = user % 4 == item % 4
    kept = np.where(bought, user % 4 < 2, np.nan)
    day = [datetime(2024, 1, 1) + timedelta(days=place) for place in range(16)] * 90
    kinds = np.array(["impression", "click", "purchase"])[clicked.astype(int) + bought]
    log = EventLog.create(folder / "log", SCHEMA)
    columns = {"user_id": user, "item_id": item, "time": day, "kind": kinds}
    labels = {"clicked": clicked.astype(np.float32), "kept": pa.array(kept, from_pandas=True)}
    log.append(pa.table({**columns, **labels}))
    catalogue = Catalogue(log.folder, SCHEMA)
    for side, feature, ids in (("user", "club", 90), ("item", "genre", 36)):
        groups = [f"{feature}{number % 4}" for number in range(ids)]
        catalogue.write(side, pa.table({f"{side}_id": np.arange(ids), feature: groups}))  # type: ignore[arg-type]
    engine = Engine(EngineConfig(threads=1))
    split = make_split(engine, log, Random(), LabelConfig(tasks=TASKS))
    rows = RowsOf(per="event", labels=True)
    write_examples(engine, split, catalogue, folder / "examples", rows_of=rows)
    return Examples(folder / "examples")


def by_task(ranker: Ranker, examples: Examples, group: Group) -> dict[str, Predictions]:
    extra = ("user_id", *ranker.judged_by)
    reader = examples.reader(TEST, ranker.inputs, ReaderConfig(batch_size=64), extra=extra)
    return Predictions.by_task(ranker, reader, "user_id", group)


def test_a_row_is_asked_only_what_is_known_of_it(examples: Examples, group: Group) -> None:
    """Only of clicks is it known whether they bought, and of purchases whether they were kept."""
    ranker: Ranker = fresh(small("dcn"), examples)
    assert ranker.tasks == ("label", "buy", "keep")
    assert "kept" not in {asked.name for asked in ranker.inputs}  # it is known too late
    rows = by_task(ranker, examples, group)
    clicks, purchases = rows["label"].labels.sum(), rows["buy"].labels.sum()
    assert 0 < purchases < clicks < len(rows["label"].labels)
    assert len(rows["buy"].labels) == clicks and len(rows["keep"].labels) == purchases


def test_missing_labels_count_for_nothing(examples: Examples) -> None:
    ranker: Ranker = fresh(small("dcn"), examples)
    extra = ranker.judged_by
    reader = examples.reader(TEST, ranker.inputs, ReaderConfig(batch_size=50), extra=extra)
    batch = next(iter(reader))
    loss, labels = ranker(batch, 0), ranker.labels(batch)
    known = ~labels.isnan()
    logits = ranker.predict(batch)
    losses = -torch.nn.functional.logsigmoid(torch.where(labels == 1, logits, -logits))
    assert loss.weight == known.sum() < labels.numel()
    torch.testing.assert_close(loss.total, losses[known].sum())
    loss.total.backward()  # and no gradient is lost to them
    assert all(
        weight.grad.isfinite().all() for weight in ranker.parameters() if weight.grad is not None
    )


def test_a_ranker_of_one_label_says_so(examples: Examples) -> None:
    with pytest.raises(ConfigError, match="learns the first label alone"):
        fresh(small("sesa", concepts="genre"), examples)


@pytest.mark.parametrize(
    ("name", "options"),
    [("dcn", {}), ("hcn", {}), ("pooling", {"experts": 2})],
)
def test_every_head_learns_its_own_rule(
    name: str, options: dict[str, Any], examples: Examples, group: Group, tmp_path: Path
) -> None:
    ranker = learn(small(name, **options), examples, tmp_path / "c", group, training(epochs=10))
    rows = by_task(ranker, examples, group)
    assert rows["label"].metrics["AUC"] > 0.95
    assert rows["buy"].metrics["AUC"] > 0.9
    if name != "dcn":
        return
    with torch.no_grad():
        assert sample_auc(ranker, examples, 200) > 0.8
    about = About(run="tasks", model="planted")
    part = RankerExport(ranker, examples, golden=8, about=about)
    catalogue = Catalogue(examples.folder / "none", examples.schema)
    scorer = Scorer(write_bundle(tmp_path / "bundle", {"ranker": part}, catalogue))
    requests = pa.table({"user_id": [4, 4], "item_id": [8, 6]})
    click, buy = (scorer.score(requests, task)["probability"] for task in ("label", "buy"))
    assert click.min() > 0.5 and buy[0] > 0.5 > buy[1]
