"""Evicting tables: who holds a row, what newcomers start from, and what strangers read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from conformance import bundle_of, fresh, learn, small, training
from feature_store.errors import ConfigError, DataError
from feature_store.event_log import EventLog
from feature_store.vocabulary import Keys
from planted import Shape, raw_requests, write_planted
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.embeddings.inspection import inspect_tables
from recsys.embeddings.layout import FeatureSpec, Layout, Managed, make_layout
from recsys.embeddings.managed import ManagedRows
from recsys.embeddings.options import Evicting, Eviction, TableConfig
from recsys.embeddings.tables import Embeddings
from recsys.training import checkpoint
from recsys.training.optimizers import Optimizer, fuse
from recsys.training.options import OptimizerConfig
from recsys.training.sharding import plan_of, shard

A, B, C, D, E, F = 11, -(2**63), 2**62, 7, 8, 9


def layout_of(rows: int, width: int = 4, **options: Any) -> Layout:
    """Of users without a vocabulary beside cities with one."""
    tables = {"user": TableConfig(vocabulary="none", rows=rows)}
    users = FeatureSpec("user", "user", 0, vocabulary=Keys(pa.int64(), "user"))
    return make_layout(
        [users, FeatureSpec("city", "city", 5)], width, Evicting(tables=tables, **options)
    )


def held(rows: ManagedRows) -> set[int]:
    """Keys that have rows."""
    return set(rows.keys.tolist()) - {2**63 - 1}


@pytest.mark.parametrize(
    ("eviction", "left"),
    [
        ("lru", {A, C, D}),  # B was read longest ago
        ("lfu", {A, B, C}),  # D is read once, no more often than A
        ("distance_lfu", {B, C, D}),  # B twice, 4 steps before: 2/5; C twice: 2/2; A once: 1/4
    ],
)
def test_a_policy_says_whose_row_a_new_id_gets(eviction: Eviction, left: set[int]) -> None:
    rows = ManagedRows(4, Managed(eviction, 1))
    for step in ([B, B], [A], [C], [C], [D]):
        rows.take_in(torch.tensor(step))
    assert held(rows) == left


@pytest.mark.parametrize("eviction", ["lru", "lfu", "distance_lfu"])
def test_no_two_ids_share_a_row_and_those_that_stay_keep_theirs(eviction: Eviction) -> None:
    rng, rows = np.random.default_rng(0), ManagedRows(50, Managed(eviction, 1))
    before: dict[int, int] = {}
    for step in range(60):
        read = torch.from_numpy(step * 3 + rng.integers(-20, 20, 30))
        newcomers = rows.take_in(read)
        now = dict(zip(rows.keys.tolist(), rows.rows.tolist(), strict=True))
        now = {key: row for key, row in now.items() if key != 2**63 - 1}
        assert sorted(rows.rows.tolist()) == list(range(50))
        assert 49 not in now.values()
        assert sorted(rows.keys.tolist()) == rows.keys.tolist()
        stayed = now.keys() & before.keys()
        assert {key: now[key] for key in stayed} == {key: before[key] for key in stayed}
        assert {now[key] for key in now.keys() - before.keys()} == set(newcomers.rows.tolist())
        found = rows(read)
        assert found.tolist() == [now.get(key, 49) for key in read.tolist()]
        before = now
    assert len(before) == 49


def test_strangers_read_the_last_row_and_take_none() -> None:
    rows = ManagedRows(5, Managed("lru", 1))
    rows.take_in(torch.tensor([A, B, A, 0]))
    kept = {name: buffer.clone() for name, buffer in rows.named_buffers()}
    found = rows(torch.tensor([[A, B], [C, 0], [2**63 - 1, -1]]))
    assert found[0].tolist() != [4, 4]
    assert found[1:].tolist() == [[4, 4], [4, 4]]
    assert all(torch.equal(kept[name], buffer) for name, buffer in rows.named_buffers())


def test_ids_are_taken_in_every_so_many_steps() -> None:
    rows = ManagedRows(9, Managed("lru", 3))
    for step in ([A], [B], [C], [D], [E], [F]):
        rows.take_in(torch.tensor(step))
    assert held(rows) == {A, D}


class _Users(nn.Module):
    """Reads users; its loss has the same gradient everywhere."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.embeddings = Embeddings(layout)

    def forward(self, users: Tensor) -> Tensor:
        cities = torch.zeros_like(users)
        vectors: Tensor = self.embeddings({"user": users, "city": cities})["user"]
        return vectors


@pytest.mark.parametrize("kind", ["replicated", "sharded"])
def test_newcomers_start_anew(kind: str, group: Group) -> None:
    """Weights as drawn and no state of optimizers, whoever had the row before; others keep both."""
    above = 0 if kind == "sharded" else 64
    model = _Users(layout_of(3, eviction="lru", shard_above_mb=above))
    config = OptimizerConfig(learning_rate=0.1)
    fuse(model, config)
    sharded = shard(model, group, config)
    optimizer = Optimizer(sharded, config)
    optimizer.set_rate(1.0)
    sharded.train()

    def step(users: list[int]) -> Tensor:
        found: Tensor = sharded(torch.tensor(users))
        before = found.detach().clone()
        optimizer.zero_grad()
        found.sum().backward()
        optimizer.step()
        return before

    def drawn(newcomer: int) -> Tensor:
        weights = torch.empty(1, 4)
        model.embeddings.fill(weights, "user", 3 + newcomer)
        return weights[0]

    def state() -> list[Tensor]:
        tensors = checkpoint.tensors_of(sharded, optimizer, group)["optimizer"]
        of_users = next(values for name, values in tensors.items() if ".user." in f".{name}")
        values = [v.local_tensor() if hasattr(v, "local_tensor") else v for v in of_users.values()]
        return [
            value.reshape(len(value), -1) for value in values if value.dim() and len(value) == 3
        ]

    first = step([A, B])
    assert {tuple(row.tolist()) for row in first} == {tuple(drawn(n).tolist()) for n in (0, 1)}
    step([B, B])
    moved, row = step([B]), int(model.embeddings.maps.managed["user"](torch.tensor([A])))
    assert all(value[row].abs().sum() > 0 for value in state())
    assert torch.equal(step([C])[0], drawn(2))  # A, read longest ago, went
    assert int(model.embeddings.maps.managed["user"](torch.tensor([C]))) == row
    assert int(model.embeddings.maps.managed["user"](torch.tensor([A]))) == 2
    assert not torch.equal(moved[0], first[1])
    sharded.eval()
    with torch.no_grad():
        assert torch.equal(sharded(torch.tensor([D])), sharded(torch.tensor([0])))
    sharded.train()
    mine = int(model.embeddings.maps.managed["user"](torch.tensor([C])))
    with torch.no_grad():
        newcomers = model.embeddings.maps.managed["user"].take_in(torch.tensor([D, D]))
        model.embeddings.evicted(model.embeddings, "user", newcomers)
    (gone,) = newcomers.rows.tolist()
    assert gone != mine
    assert all(value[gone].abs().sum() == 0 for value in state())
    assert all(value[mine].abs().sum() > 0 for value in state())


@pytest.fixture(scope="module")
def keyed(planted_log: EventLog, tmp_path_factory: pytest.TempPathFactory) -> dict[Shape, Examples]:
    folder = tmp_path_factory.mktemp("evicting")
    return {"events": write_planted(planted_log, folder / "events", "events", keyed=("user_id",))}


def test_a_bundle_knows_who_has_rows(
    keyed: dict[Shape, Examples], planted_log: EventLog, group: Group, tmp_path: Path
) -> None:
    """After a training with far more users than rows; strangers all get one answer."""
    config = small("two_tower", user_features=("user_id",))
    tables = {"user_id": TableConfig(vocabulary="none", rows=30)}
    examples = keyed["events"]
    model = learn(
        config,
        examples,
        tmp_path / "checkpoints",
        group,
        training(epochs=1, steps=4),
        embeddings=Evicting(tables=tables),
    )
    maps = model.embeddings.maps.managed["user_id"]
    assert len(held(maps)) == 29
    assert maps.steps.item() == 4
    bundle = bundle_of(model, examples, planted_log, tmp_path / "bundle")
    row = raw_requests(examples).head(1)
    mine, theirs = sorted(held(maps))[:2]
    users = [mine, theirs, 10**15, -5, None]
    asked = [row.assign(user_id=np.array([user], object)) for user in users]
    scores = [bundle.recommend(requests=of, k=5)["score"].to_numpy() for of in asked]
    assert not np.allclose(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2])
    assert np.array_equal(scores[2], scores[3])
    assert np.array_equal(scores[2], scores[4])
    (of_users,) = (t for t in inspect_tables(model.embeddings.plain()) if t.table == "user_id")
    assert of_users.dead == 0
    other = fresh(
        config, examples, Evicting(tables={"user_id": TableConfig(vocabulary="none", rows=31)})
    )
    newest = checkpoint.newest(tmp_path / "checkpoints")
    assert newest is not None
    with pytest.raises(DataError, match=r"has 30 rows, now 31, and ids hold them; keep emb"):
        checkpoint.load_unsharded(newest, other)
    other = fresh(config, examples, Evicting(tables=tables, eviction="lru"))
    with pytest.raises(DataError, match="the eviction of table user_id was distance_lfu, now lru"):
        checkpoint.load_unsharded(newest, other)


def test_a_plan_counts_the_map_of_every_process() -> None:
    model = _Users(layout_of(1000, shard_above_mb=0))
    plan = plan_of(model, 2, OptimizerConfig())["embeddings"]
    assert plan.dense == 1000 * 8 * 4 + 2 * 8  # keys, rows, counts, last read; two numbers
    assert [placement.kind for placement in plan.placements] == ["row_wise", "table_wise"]


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({}, "the model reads none: say of one of user"),
        ({"user": TableConfig(vocabulary="none")}, r"embeddings\.tables\.user\.rows how many rows"),
        ({"user": TableConfig(vocabulary="none", rows=1)}, "2 at least"),
        ({"user": TableConfig(vocabulary="none", rows=9, probes=2)}, "probes means nothing"),
    ],
)
def test_a_layout_says_what_it_lacks(tables: dict[str, TableConfig], said: str) -> None:
    ids = Keys(pa.int64(), "user") if tables else None
    with pytest.raises(ConfigError, match=said):
        make_layout([FeatureSpec("user", "user", 0, vocabulary=ids)], 4, Evicting(tables=tables))


def test_decay_by_counts_of_rows_is_refused(group: Group) -> None:
    config = OptimizerConfig(mini_batch_aware_decay=0.1)
    model = _Users(layout_of(9))
    with pytest.raises(ConfigError, match=r"mini_batch_aware_decay counts .* go from id to id"):
        Optimizer(shard(model, group, config), config)


@pytest.mark.cuda
def test_maps_are_the_same_on_a_gpu() -> None:
    one, other = (ManagedRows(50, Managed("distance_lfu", 1)) for _ in range(2))
    other.to("cuda")
    rng = np.random.default_rng(0)
    for step in range(20):
        read = torch.from_numpy(step * 3 + rng.integers(-20, 20, 30))
        assert other.take_in(read.cuda()).rows.tolist() == one.take_in(read).rows.tolist()
        assert other(read.cuda()).tolist() == one(read).tolist()
