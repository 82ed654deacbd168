"""What a ranker must not read: what tells its label."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from conformance import fresh, small
from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import ConfigError
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, write_examples
from feature_store.labels import LabelConfig, NegativesConfig
from feature_store.schema import Feature, Schema
from feature_store.splits import LeaveOneOut, make_split
from planted import Shape
from recsys.data.examples import Examples

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
