"""Two towers and items that nobody has had: they are placed by what is known of them."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from conformance import answer, batch_from, fresh, learn, request_table, small, training
from feature_store.catalogue import Catalogue
from feature_store.columns import HISTORY
from feature_store.event_log import EventLog
from feature_store.schema import Feature, Schema
from planted import Shape, write_planted
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.distributed import Group

GENRES, SIZE, NEW = 4, 15, 3  # the last items of each genre are in the catalogue alone
SCHEMA = Schema(
    user="user_id",
    item="item_id",
    features=(
        Feature(name="user_id", kind="id", side="user", dtype="int64"),
        Feature(name="item_id", kind="id", side="item", dtype="int64"),
        Feature(name="genre", kind="id", side="item", dtype="int64"),
    ),
)


@pytest.fixture(scope="module")
def genres(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    """Everyone has eight items of one genre; item and user n are of genre n % GENRES."""
    folder = tmp_path_factory.mktemp("genres")
    log, rng = EventLog.create(folder / "log", SCHEMA), np.random.default_rng(3)
    users = np.repeat(np.arange(200), 8)
    chosen = [
        GENRES * rng.choice(SIZE - NEW, 8, replace=False) + user % GENRES for user in range(200)
    ]
    times = [datetime(2024, 1, 1) + timedelta(hours=hour) for hour in range(len(users))]
    log.append(pa.table({"user_id": users, "item_id": np.concatenate(chosen), "time": times}))
    items = np.arange(GENRES * SIZE)
    catalogue = pa.table({"item_id": items, "genre": items % GENRES}, SCHEMA.side_schema("item"))
    Catalogue(log.folder, SCHEMA).write("item", catalogue)
    return write_planted(log, folder / "events", "events")


def genre_of(examples: Examples, rows: torch.Tensor) -> torch.Tensor:
    """The genre of item rows."""
    return torch.from_numpy(examples.vocabulary("item_id").decode(rows.numpy()).to_numpy() % GENRES)


def test_new_items_go_to_those_who_like_their_kind(
    genres: Examples, group: Group, tmp_path: Path
) -> None:
    config = small("two_tower", id_dropout=0.5)
    towers = learn(config, genres, tmp_path, group, training(epochs=10))
    new = genres.candidates("new")
    assert len(new) == GENRES * NEW
    towers.prepare(new)
    table = request_table(towers, genres)
    users = batch_from(towers, table).padded(HISTORY)[:, 0]
    hits = genre_of(genres, answer(towers, table, NEW).ids.flatten()).view(-1, NEW)
    share = float((hits == genre_of(genres, users).unsqueeze(1)).double().mean())
    assert share > 0.95


def test_new_items_alike_in_all_but_their_ids_are_one(genres: Examples) -> None:
    """An id that was never trained is noise."""
    towers = fresh(small("two_tower"), genres).eval()
    for which, alike in (("new", True), ("known", False)):
        rows = genres.candidates(which)
        rows = rows[genre_of(genres, rows) == 1]
        vectors = towers.embed_items(rows)
        assert torch.equal(vectors, vectors[:1].expand_as(vectors)) == alike


def test_new_items_have_no_ids_where_they_are_negatives(genres: Examples) -> None:
    """They are placed by their other features from the first step on."""
    examples, new = copy.copy(genres), genres.candidates("new")
    examples.known_events = genres.known_events.index_fill(0, new, 1)  # seen after the training
    config = small("two_tower", negative_sampling="uniform", negatives=0, log_q=False)
    towers = fresh(config, examples)
    assert torch.isin(new, towers.objective.sampler.everything()).all()
    asked: list[torch.Tensor] = []
    towers.embeddings.register_forward_pre_hook(lambda _, given: asked.append(given[0]["item_id"]))
    reader = towers.training_reader(examples, ReaderConfig(batch_size=64), seed=0, rank=0, world=1)
    towers(next(iter(reader)), 0)
    (ids,) = asked
    assert not torch.isin(ids, new).any() and torch.isin(genres.candidates(), ids).all()


def test_the_unit_of_a_number_does_not_matter(planted: dict[Shape, Examples]) -> None:
    """Prices in cents are the same prices; one that is unknown is no price of 0."""
    examples, vectors = planted["events"], []
    place = examples._items.column_names.index("list_price")
    for scale in (1.0, 100.0):
        scaled = copy.copy(examples)
        prices = pc.multiply(examples._items.column("list_price"), pa.scalar(scale, pa.float32()))
        scaled._items = examples._items.set_column(place, "list_price", prices)
        towers = fresh(small("two_tower"), scaled).eval()
        vectors.append(towers.embed_items(torch.arange(examples.num_items)))
    torch.testing.assert_close(vectors[1], vectors[0])
    rows = examples.vocabulary("item_id").encode(pa.array(["i00", "i01", "i38"]))
    prices = towers.numbers("list_price", towers.items(torch.tensor(rows)).numbers["list_price"])
    assert prices[0] == 0 and prices[1] < -1 and prices[2] > 1


@pytest.mark.parametrize(
    ("options", "bucketed"),
    [({}, False), ({"log_q": False}, True), ({"negative_sampling": "uniform"}, True)],
)
def test_negatives_of_the_batch_are_expected_where_any_user_may_be_in_it(
    options: dict[str, Any], bucketed: bool, planted: dict[Shape, Examples]
) -> None:
    """Here the lengths of histories tell where on the ring a user is: in buckets, some items come
    far more often than `log_q` says."""
    examples = planted["events"]
    towers = fresh(small("two_tower", **options), examples)
    config = ReaderConfig(batch_size=64, bucket_batches=64)
    reader = towers.training_reader(examples, config, seed=0, rank=0, world=1)
    lengths = [batch.jagged(HISTORY).lengths().double() for batch in reader]
    within = torch.stack([of_batch.std() for of_batch in lengths]).mean()
    assert (within < 0.5 * torch.cat(lengths).std()) == bucketed


def test_the_share_of_hidden_ids_is_what_it_is_set_to(genres: Examples) -> None:
    """Others at every step."""
    towers = fresh(small("two_tower", id_dropout=0.3), genres)
    asked: list[torch.Tensor] = []
    towers.embeddings.register_forward_pre_hook(lambda _, given: asked.append(given[0]["item_id"]))
    batch = next(
        iter(towers.training_reader(genres, ReaderConfig(batch_size=1024), seed=0, rank=0, world=1))
    )
    for step in range(40):
        towers(batch, step)
    own = torch.stack(asked)[:, : GENRES * (SIZE - NEW)]
    assert abs(float((own == 0).double().mean()) - 0.3) < 0.03
    assert ((own == 0).sum(0) > 0).all() and ((own == 0).sum(0) < 40).all()
