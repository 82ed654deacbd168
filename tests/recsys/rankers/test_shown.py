"""Rankers that learn from lists as they were shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from conformance import batch_from, fresh, rows_of, small
from feature_store.catalogue import Catalogue
from feature_store.columns import LABEL, LAST_TOUCHED, LIST, LIST_PLACE
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import ConfigError
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, write_examples
from feature_store.labels import LabelConfig
from feature_store.protocols import GlobalTime
from feature_store.schema import Feature, Schema
from feature_store.splits import make_split
from planted import Shape
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.inputs import Compared, Number, Requests
from recsys.layers.place_features import PLACE_FEATURES
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
        Feature(name="price", kind="dense", side="context", dtype="float64"),
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
    prices = random.integers(1, 100, items.size).tolist()
    times = [datetime(2024, 1, 1) + timedelta(hours=page) for page in range(LISTS)]
    events = pa.table(
        {
            "u": np.repeat(np.arange(LISTS) % 7, PLACES),
            "i": items.ravel(),
            "time": [time for time in times for _ in range(PLACES)],
            "clicked": clicked.ravel().astype(np.float32),
            "page": np.repeat(np.arange(LISTS), PLACES),
            "place": np.tile(np.arange(1, PLACES + 1), LISTS),
            "price": [None if price > 90 else price for price in prices],
        }
    )
    log = EventLog.create(folder / "log", SCHEMA)
    log.append(events.select(log.schema.events_schema().names))
    catalogue, engine = Catalogue(log.folder, SCHEMA), Engine(EngineConfig(threads=1))
    described = {"i": range(1, ITEMS + 1), "kind": [item % 3 for item in range(ITEMS)]}
    catalogue.write("item", pa.table(described, SCHEMA.side_schema("item")))
    split = make_split(engine, log, GlobalTime(validation_days=1, test_days=1), LabelConfig())
    labelled = RowsOf(per="event", labels=True, compared=("price",))
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


def test_numbers_of_a_list_are_the_same_from_its_requests(shown: Examples) -> None:
    """Examples are made of whole users in order; requests of one list come together, in any."""
    ranker = fresh(small("pooling", compared=("price",), logs=("price",)), shown)
    asked = [each for each in ranker.inputs if isinstance(each, Compared)]
    assert [each.name for each in asked] == ["price#rank", "price#last"]
    table = pq.read_table(shown.folder / "test.parquet").combine_chunks()
    columns = {"price": Number("price").to_raw(table, {}), "page": table[LIST]}
    requests = pa.table({**columns, LAST_TOUCHED: table[LAST_TOUCHED]})
    order = np.random.default_rng(0).permutation(len(table))
    batch = Block.of(table.select([each.name for each in asked])).to_batch()
    assert batch.column("price#rank").isnan().any() and not batch.column("price#last").isnan().all()
    for each in asked:
        told = each.from_requests(Requests(requests.take(order), {}))
        expected = each.from_batch(batch)[order]
        torch.testing.assert_close(told, expected, equal_nan=True, rtol=0, atol=0)
    with pytest.raises(ConfigError, match=r"ranker\.compared names clicked, which gives the label"):
        fresh(small("pooling", compared=("clicked",)), shown)
    with pytest.raises(ConfigError, match=r"ranker\.logs names kind; .* are: price"):
        fresh(small("pooling", context_features=("price",), logs=("kind",)), shown)


@pytest.mark.parametrize("name", ["pooling", "din"])
def test_a_network_that_reads_places_forgets_them_when_it_answers(
    name: str, shown: Examples
) -> None:
    torch.manual_seed(0)
    ranker = fresh(small(name, position=True, mixed_places=True), shown).eval()
    batch = a_batch(ranker, shown)
    first = replace(batch, ids=batch.ids.clone())
    first.id(LIST_PLACE)[:] = 1
    with torch.no_grad():
        assert torch.equal(ranker.predict(batch), ranker.predict(first))
        there, as_such = ranker.predict_shown(batch), ranker.predict(batch)
        # nothing is learned of places yet: what differs is the network's
        moved = (there - as_such)[:, 0]
        assert moved.std() > 0 and not torch.equal(there, ranker.predict_shown(first))
        ranker.deep[0].weight[:, -PLACE_FEATURES:] = 0
        torch.testing.assert_close(ranker.predict_shown(batch), ranker.predict(batch))
    loss = ranker(batch, 0)
    loss.total.backward()
    assert ranker.deep[0].weight.grad[:, -PLACE_FEATURES:].abs().sum() > 0
    with pytest.raises(ValidationError, match="set position = true"):
        small(name, mixed_places=True)


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
