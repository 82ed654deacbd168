"""The graph retriever: what it is trained on, whom it knows, what it takes along to serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from conformance import LAYOUTS, batch_from, bundle_of, fresh, learn, request_table, small, training
from feature_store.columns import TARGET
from feature_store.event_log import EventLog
from planted import Shape
from recsys.data.batch import Batch
from recsys.data.examples import Examples
from recsys.data.options import ReaderConfig
from recsys.distributed import Group
from recsys.embeddings.options import EmbeddingsConfig, QuantisationConfig
from recsys.export.generator import UserTower
from recsys.export.programs import export_program
from recsys.retrievers.graph import Graph


@pytest.fixture
def examples(planted: dict[Shape, Examples]) -> Examples:
    return planted["events"]


def graph(examples: Examples, layout: EmbeddingsConfig | None = None, **options: Any) -> Graph:
    made = fresh(small("graph", **options), examples, layout)
    assert isinstance(made, Graph)
    return made


def first_batch(model: Graph, examples: Examples) -> Batch:
    config = ReaderConfig(batch_size=50)
    return next(iter(model.training_reader(examples, config, seed=0, rank=0, world=1)))


def test_the_loss_is_the_published_one(examples: Examples) -> None:
    """BPR against what a user never had, and the squares of users, targets and as many negatives
    before propagation."""
    model = graph(examples, regularisation=0.3, negative_sets=1)
    batch = first_batch(model, examples)
    users, targets = batch.id("user_id").long(), batch.id(TARGET).long()
    negatives = model.objective.sampler.sample(64, 7)[0]
    e_users, e_items = model.embeddings.first()
    x, y = model.embeddings.propagate(e_users, e_items)
    events = examples.interactions()
    own = {user: events.items[events.users == user] for user in users.tolist()}
    assert all(target in own[user] for user, target in zip(users.tolist(), targets, strict=True))
    total = torch.tensor(0.0)
    for user, target in zip(users.tolist(), targets.tolist(), strict=True):
        others = negatives[~torch.isin(negatives, own[user])]
        score, rest = x[user] @ y[target], x[user] @ y[others].T
        total = total - F.logsigmoid(score - rest).mean()
        squares = e_users[user].square().sum() + e_items[target].square().sum()
        squares = squares + e_items[negatives].square().sum(1).mean()
        total = total + 0.3 / 2 * squares
    loss = model(batch, 7)
    torch.testing.assert_close(loss.total, total)
    assert loss.weight == len(users)


def test_its_edges_are_the_training_events(examples: Examples) -> None:
    events = examples.interactions()
    known = set(zip(events.users.tolist(), events.items.tolist(), strict=True))
    edges = graph(examples).embeddings.graph
    assert set(zip(edges.users.tolist(), edges.items.tolist(), strict=True)) == known


@pytest.mark.parametrize("propagation", ["lightgcn", "sheaf", "none"])
def test_unknown_users_get_the_mean_vector(examples: Examples, propagation: str) -> None:
    model = graph(examples, propagation=propagation).eval()
    users, _ = model.embeddings.propagated()
    trained = model.embeddings.graph.degrees[0] > 0
    vector = model.encode({"user_id": torch.tensor([0])}).vectors[0, 0]
    assert not trained[0]
    torch.testing.assert_close(vector, users[trained].mean(0))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_derived_is_saved(examples: Examples, layout: str) -> None:
    model = graph(examples, LAYOUTS[layout]).eval()
    model.prepare(examples.candidates())
    tables = {f"embeddings.tables.{t.name}.weight" for t in model.embeddings.layout.tables}
    assert set(model.state_dict()) == tables


def test_other_weights_are_other_vectors(examples: Examples) -> None:
    """Vectors are kept, until weights are loaded or trained."""
    model, other = graph(examples).eval(), fresh(small("graph"), examples, seed=1).eval()
    before = model.embeddings.propagated()[1]
    assert model.embeddings.propagated()[1] is before
    model.load_state_dict(other.state_dict())
    after = model.embed_items(torch.arange(examples.num_items))
    assert torch.equal(after, other.embed_items(torch.arange(examples.num_items)))
    assert not torch.equal(after, before)
    model.train()
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(2)
    torch.testing.assert_close(model.eval().embeddings.propagated()[1], 2 * after)


def test_the_tower_holds_user_vectors_and_no_graph(examples: Examples, tmp_path: Path) -> None:
    model = graph(examples, propagation={"name": "sheaf", "layers": 2}).eval()
    batch = batch_from(model, request_table(model, examples))
    export_program(UserTower(model), model, batch, tmp_path / "tower.pt2")
    program = torch.export.load(str(tmp_path / "tower.pt2"))
    sizes = {tuple(found.shape) for found in (*program.state_dict.values(),)}
    constants = [tuple(found.shape) for found in program.constants.values()]
    users = len(examples.vocabulary("user_id"))
    assert sizes == {(users, 3 * 16)}
    edges = len(model.embeddings.graph.items)
    assert not any(edges in shape for shape in constants)
    vectors, _ = program.module()(model.inputs_of(batch))
    torch.testing.assert_close(vectors, model.embed_users(batch).vectors)


def test_its_user_vectors_can_be_quantised(
    examples: Examples, planted_log: EventLog, group: Group, tmp_path: Path
) -> None:
    model = learn(small("graph"), examples, tmp_path / "run", group, training(epochs=4))
    assert isinstance(model, Graph)
    served = bundle_of(
        model,
        examples,
        planted_log,
        tmp_path / "bundle",
        quantisation=QuantisationConfig(dtype="int8", max_loss=0.2),
    )
    quantisation = served.generator.record.quantisation
    assert quantisation is not None and quantisation.tables["user_id"].dtype == "int8"
