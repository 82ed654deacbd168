"""What a ranker must not read, what tells its label; and how drawn negatives are undone."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
import torch

from conformance import batch_from, fresh, rows_of, small
from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import ConfigError
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, write_examples
from feature_store.labels import LabelConfig, NegativesConfig
from feature_store.protocols import LeaveOneOut
from feature_store.schema import Feature, Schema
from feature_store.splits import make_split
from planted import Shape
from recsys.config import parse_config
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.rankers.base import Ranker
from recsys.runs.calibration import calibrated, log_draws_of

SCHEMA = Schema(
    user="u",
    item="i",
    price="paid",
    cost="spent",
    features=(
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item"),
        Feature(name="device", kind="id", side="context"),
        Feature(name="paid", kind="dense", side="context", dtype="float64"),
        Feature(name="spent", kind="dense", side="context", dtype="float64"),
    ),
)


def purchases(folder: Path, labels: LabelConfig) -> Examples:
    """Of three users, four each, whose price tells what was bought."""
    log = EventLog.create(folder / "log", SCHEMA)
    bought = [(user, f"i{(user + at) % 7}", at) for user in range(3) for at in range(4)]
    users, items, days = zip(*bought, strict=True)
    times = [datetime(2024, 1, 1) + timedelta(days=day) for day in days]
    prices = [float(item[1:]) for item in items]
    columns = {"u": users, "i": items, "time": times, "device": ["phone"] * len(users)}
    log.append(pa.table({**columns, "paid": prices, "spent": prices}))
    engine = Engine(EngineConfig(threads=1))
    split = make_split(engine, log, LeaveOneOut(), labels)
    write_examples(
        engine, split, Catalogue(log.folder, SCHEMA), folder / "e",
        rows_of=RowsOf("event", labels=True), negatives=labels.negatives,
    )  # fmt: skip
    return Examples(folder / "e")


def test_beside_drawn_items_the_price_of_what_was_bought_is_no_feature(tmp_path: Path) -> None:
    examples = purchases(tmp_path, LabelConfig(negatives=NegativesConfig(per_positive=1)))
    read = [asked.name for asked in fresh(small("dcn"), examples).inputs]
    assert read == ["u", "device"]
    for name in ("paid", "spent"):
        with pytest.raises(ConfigError, match=f"names {name}, which gives the label away"):
            fresh(small("dcn", context_features=(name,)), examples)


def test_a_label_is_no_feature(planted: dict[Shape, Examples]) -> None:
    with pytest.raises(ConfigError, match="names liked, which gives the label away"):
        fresh(small("dcn", context_features=("liked",)), planted["labelled"])


def test_drawn_negatives_are_undone_of_the_first_task(tmp_path: Path) -> None:
    """Six items, four draws a purchase: a share of 1/6 each, log(4/6) of every logit."""
    labels = LabelConfig(negatives=NegativesConfig(per_positive=4))
    examples = purchases(tmp_path, labels)
    tree = {"name": "r", "data": {"source": "synthetic"}, "ranker": {"name": "dcn"}}
    config = parse_config(tree).model_copy(update={"labels": labels})
    ranker = fresh(small("dcn"), examples).eval()
    undone = calibrated(config, ranker, examples)
    batch = next(iter(examples.reader("test", ranker.inputs, ReaderConfig(), extra=("i",))))
    added = cast(Ranker, undone).predict(batch) - ranker.predict(batch)
    torch.testing.assert_close(added, torch.full_like(added, math.log(4 / 6)))
    stays = config.calibration.model_copy(update={"undo_drawn": False})
    assert calibrated(config.model_copy(update={"calibration": stays}), ranker, examples) is ranker


def test_draws_beside_0s_of_the_log_are_not_undone(planted: dict[Shape, Examples]) -> None:
    """Half of `labelled` are 0s, which nobody drew."""
    tree: dict[str, Any] = {"name": "r", "data": {"source": "synthetic"}, "ranker": {"name": "dcn"}}
    examples = planted["labelled"]
    positive = examples.training_labels() == 1
    per_positive = int((~positive).sum() / positive.sum())
    for drawn, undone in ((per_positive + 1, True), (per_positive, False)):
        tree["labels"] = {"negatives": {"per_positive": drawn}}
        assert (log_draws_of(parse_config(tree), examples) is not None) == undone


@pytest.mark.parametrize("name", ["pooling", "din", "hcn"])
def test_the_same_is_learned_from_and_answered(name: str, planted: dict[Shape, Examples]) -> None:
    """Learning reads each item of a batch once; an item that nobody knows is none of a history."""
    examples = planted["labelled"]
    ranker: Any = fresh(small(name), examples).eval()
    batch = batch_from(ranker, rows_of(ranker, examples).slice(0, 5))
    inputs, items = ranker.inputs_of(batch), batch.id(ranker.item).unsqueeze(1).clone()
    items[0] = 0
    assert (inputs["history"] == 0).any()
    with torch.no_grad():
        expected = ranker.logits(inputs, items)
    torch.testing.assert_close(ranker.logits(inputs, items).detach(), expected)
