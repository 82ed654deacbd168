"""Rankers that learn from lists as they were shown."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F

from conformance import batch_from, fresh, rows_of, small
from feature_store.catalogue import Catalogue
from feature_store.columns import LABEL, LIST
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import ConfigError
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, write_examples
from feature_store.labels import LabelConfig
from feature_store.schema import Feature, Schema
from feature_store.splits import GlobalTime, make_split
from planted import Shape
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.layers.repeats import REPEATS
from recsys.objectives.listwise import list_softmax
from recsys.rankers import RANKERS
from recsys.rankers.base import Ranker

PLACES, LISTS, ITEMS = 4, 1500, 10
SCHEMA = Schema(
    user="u",
    item="i",
    label="clicked",
    list="page",
    place="place",
    features=(
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item", dtype="int64"),
        Feature(name="kind", kind="id", side="item", dtype="int64"),
        Feature(name="clicked", kind="dense", side="context", dtype="float32"),
        Feature(name="page", kind="id", side="context", dtype="int64"),
        Feature(name="place", kind="dense", side="context", dtype="int64"),
    ),
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Lists of four items: the worse an item, the further up it stands mostly, and what stands
    further down is looked at less. Item i is liked with a probability of i / 15."""
    folder, random = tmp_path_factory.mktemp("shown"), np.random.default_rng(0)
    items = random.integers(1, ITEMS + 1, (LISTS, PLACES))
    order = np.argsort(items + 2 * random.standard_normal(items.shape), axis=1)
    items = np.take_along_axis(items, order, axis=1)
    looked = np.array([1, 0.5, 0.25, 0.12])
    clicked = random.random(items.shape) < looked * items / 15
    times = [datetime(2024, 1, 1) + timedelta(hours=page) for page in range(LISTS)]
    events = pa.table(
        {
            "u": np.repeat(np.arange(LISTS) % 7, PLACES),
            "i": items.ravel(),
            "time": [time for time in times for _ in range(PLACES)],
            "clicked": clicked.ravel().astype(np.float32),
            "page": np.repeat(np.arange(LISTS), PLACES),
            "place": np.tile(np.arange(1, PLACES + 1), LISTS),
        }
    )
    log = EventLog.create(folder / "log", SCHEMA)
    log.append(events.select(log.schema.events_schema().names))
    catalogue, engine = Catalogue(log.folder, SCHEMA), Engine(EngineConfig(threads=1))
    described = {"i": range(1, ITEMS + 1), "kind": [item % 3 for item in range(ITEMS)]}
    catalogue.write("item", pa.table(described, SCHEMA.side_schema("item")))
    split = make_split(engine, log, GlobalTime(validation_days=1, test_days=1), LabelConfig())
    labelled = RowsOf(per="event", labels=True)
    write_examples(engine, split, catalogue, folder / "examples", rows_of=labelled)
    return Examples(folder / "examples")


def a_batch(ranker: Ranker, examples: Examples, **options: Any) -> Batch:
    config = ReaderConfig(batch_size=64, **options)
    return next(iter(ranker.training_reader(examples, config, seed=0, rank=0, world=1)))


@pytest.mark.parametrize("name", list(RANKERS))
def test_a_share_of_the_loss_is_a_softmax_of_each_list(name: str, shown: Examples) -> None:
    options = {"concepts": "kind", "beta": 0.0} if name == "sesa" else {}
    ranker = fresh(small(name, listwise=0.25, **options), shown)
    batch = a_batch(ranker, shown)
    lists = batch.id(LIST)
    assert (lists.unique(return_counts=True)[1] == PLACES).all()
    logits = ranker.logits(ranker.inputs_of(batch), batch.id("i").unsqueeze(1))[:, 0, 0]
    single = F.binary_cross_entropy_with_logits(logits, batch.label(LABEL), reduction="sum")
    compared, judged = list_softmax(logits, batch.label(LABEL), lists)
    torch.manual_seed(0)
    loss = ranker(batch, 0)
    torch.testing.assert_close(loss.total, 0.75 * single + 0.25 * compared)
    torch.testing.assert_close(loss.weight, 0.75 * len(batch) + 0.25 * judged)


def test_a_log_without_lists_has_none_to_compare(planted: dict[Shape, Examples]) -> None:
    with pytest.raises(ConfigError, match=r"ranker\.listwise .* the log has no lists"):
        fresh(small("din", listwise=1), planted["labelled"])


@pytest.mark.parametrize("listwise", [0.0, 1.0])
def test_scores_forget_where_items_stood_once_places_are_learned(
    listwise: float, shown: Examples
) -> None:
    """The best items stand where few look: who does not know that takes them for the worst."""
    items = torch.arange(1, len(shown.vocabulary("i")))
    truth = torch.tensor(shown.vocabulary("i").values.to_pylist())
    agreement = {}
    for position in (False, True):
        torch.manual_seed(0)
        options = {"position": position, "listwise": listwise, "hidden": ()}
        ranker = fresh(small("dcn", **options, item_features=("i",)), shown)
        reader = ReaderConfig(batch_size=1 << 20)
        (batch,) = ranker.training_reader(shown, reader, seed=0, rank=0, world=1)
        optimizer = torch.optim.Adam(ranker.parameters(), lr=0.05)
        for step in range(40):
            optimizer.zero_grad()
            loss = ranker(batch, step)
            (loss.total / loss.weight).backward()
            optimizer.step()
        with torch.no_grad():
            state = ranker.encode({k: v[:1] for k, v in ranker.inputs_of(batch).items()})
            scores = ranker.score(state, items.unsqueeze(0))[0, :, 0]
            there, as_such = ranker.predict_shown(batch), ranker.predict(batch)
        assert torch.equal(there, as_such) != position
        ranks = torch.stack([scores, truth.float()]).argsort(1).argsort(1).float()
        agreement[position] = float(ranks.corrcoef()[0, 1])
    assert agreement[True] > 0.75
    assert agreement[True] - agreement[False] > 0.4


@torch.no_grad()
def test_repeats_are_told_of_items_in_any_list(planted: dict[Shape, Examples]) -> None:
    """Of a model that learned nothing the numbers beside a history move the logit of what is in
    it, and of nothing else."""
    examples = planted["labelled"]
    torch.manual_seed(0)
    ranker = fresh(small("din", repeats=True), examples).eval()
    rows = torch.tensor([[5, 7, 5, 0]])
    table = rows_of(ranker, examples).slice(0, 1)
    inputs = ranker.inputs_of(batch_from(ranker, table)) | {"history": rows}
    items = torch.tensor([[5, 6, 7, 8]])
    told = ranker.score(ranker.encode(inputs), items)
    torch.testing.assert_close(ranker.logits(inputs, items), told)
    ranker.deep[0].weight[:, -REPEATS:] = 0
    moved = (ranker.score(ranker.encode(inputs), items) != told)[0, :, 0]
    assert moved.tolist() == [True, False, True, False]


def test_what_needs_lists_says_so(planted: dict[Shape, Examples]) -> None:
    with pytest.raises(ConfigError, match=r"ranker\.position .* the log has no lists"):
        fresh(small("din", position=True), planted["labelled"])
