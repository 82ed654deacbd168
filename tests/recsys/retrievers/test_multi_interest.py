"""Extractors against their formulas, one user at a time; targets; planted interests."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conformance import batch_from, fresh, learn, measure, request_table, small, training
from feature_store.columns import HISTORY
from feature_store.event_log import EventLog
from feature_store.schema import Feature, Schema
from planted import Shape, write_planted
from recsys.data.examples import Examples
from recsys.distributed import Group
from recsys.evaluation.interests import matched_purity
from recsys.layers.interests import (
    HCN,
    MIND,
    ComiRecDR,
    ComiRecSA,
    Extractor,
    Interests,
    MeanPooling,
    nearest,
    newest_first,
    squash,
)
from recsys.objectives.targets import draw_targets
from recsys.retrievers.multi_interest import MultiInterest, shares

B, K, T, D, LENGTH = 4, 3, 9, 5, 12
LENGTHS = (1, 9, 4, 0)


def mean_by_hand(layer: MeanPooling, events: Tensor) -> Tensor:
    mean = events.mean(0) if len(events) else torch.zeros(D).double()
    inner = torch.relu(layer.feed.inner.weight @ mean + layer.feed.inner.bias)
    return (mean + layer.feed.outer.weight @ inner + layer.feed.outer.bias).unsqueeze(0)


def sa_by_hand(layer: ComiRecSA, events: Tensor) -> Tensor:
    logits = [
        layer.attention.weight @ torch.tanh(layer.hidden.weight @ (event + layer.positions[i]))
        for i, event in enumerate(events)
    ]
    if not logits:
        return torch.zeros(K, D).double()
    weights = torch.stack(logits).softmax(0)
    return torch.stack(
        [sum(weights[i, k] * events[i] for i in range(len(events))) for k in range(K)]
    )


def routed(votes: Callable[[int, int], Tensor], b: Tensor, iterations: int) -> Tensor:
    """Capsules of one user by the loop of the papers; `b` [n, K] are the first logits."""
    b = b.clone()
    n, interests = b.shape
    for step in range(iterations):
        capsules = []
        for k in range(interests):
            total = torch.zeros(D).double()
            for i in range(n):
                total = total + b[i].softmax(0)[k] * votes(i, k)
            length = total.norm()
            capsules.append(length**2 / (1 + length**2) * total / length if n else total)
        if step < iterations - 1:
            for i in range(n):
                b[i] += torch.stack([capsules[k] @ votes(i, k) for k in range(interests)])
    return torch.stack(capsules)


def dr_by_hand(layer: ComiRecDR, events: Tensor) -> Tensor:
    def votes(i: int, k: int) -> Tensor:
        # einsum's order: an event's entry d times the map's row d
        return events[i] @ layer.maps[i, k]

    return routed(votes, torch.zeros(len(events), K).double(), layer.iterations)


def mind_by_hand(layer: MIND, events: Tensor) -> Tensor:
    count = max(1, min(K, math.floor(math.log2(len(events))))) if len(events) else 1
    mapped = events @ layer.map.weight.T
    found = routed(lambda i, k: mapped[i], layer.start[: len(events), :count], layer.iterations)
    return torch.stack([layer.feed(one) for one in found])


def hcn_by_hand(layer: HCN, events: Tensor) -> Tensor:
    def norm(module: Any, x: Tensor) -> Tensor:
        return F.layer_norm(x, (D,), module.weight, module.bias)

    def refine(history: Tensor) -> Tensor:
        centres = layer.centres
        for query_norm in layer.query_norms:
            queries = norm(query_norm, centres)
            moved = torch.zeros(K, D).double()
            if len(history):
                competing = torch.stack(
                    [torch.stack([c @ e for c in queries]) / D**0.5 for e in history]
                ).softmax(1)  # over the centres
                for k in range(K):
                    share = competing[:, k] / competing[:, k].sum()
                    moved[k] = (share.unsqueeze(1) * history).sum(0)
            centres = moved
        return centres

    scaled = events.clone()
    for i, event in enumerate(events):
        scaled[i] = D**0.5 * event / event.square().sum().sqrt()
    whole, short = refine(scaled), refine(scaled[: layer.short_length])
    shorter = short + (3 * short @ whole.T / D**0.5).softmax(1) @ whole
    longer = whole + (3 * whole @ short.T / D**0.5).softmax(1) @ short
    gate = torch.sigmoid(
        torch.stack([layer.gate(torch.cat(pair)) for pair in zip(shorter, longer, strict=True)])
    )
    return gate * shorter + (1 - gate) * longer


CASES: list[tuple[Callable[[], Extractor], Callable[[Any, Tensor], Tensor]]] = [
    (lambda: MeanPooling(D, K, LENGTH), mean_by_hand),
    (lambda: MIND(D, K, LENGTH, 3), mind_by_hand),
    (lambda: ComiRecDR(D, K, LENGTH, 3), dr_by_hand),
    (lambda: ComiRecSA(D, K, LENGTH), sa_by_hand),
    (lambda: HCN(D, K, LENGTH, short_length=3, levels=2), hcn_by_hand),
]


@pytest.mark.parametrize(("make", "by_hand"), CASES)
def test_an_extractor_is_its_formula(
    make: Callable[[], Extractor], by_hand: Callable[[Any, Tensor], Tensor]
) -> None:
    """Of every user alone, with and without padding whatever stands in it."""
    torch.manual_seed(0)
    layer = make().double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    events = torch.randn(B, T, D, dtype=torch.float64)
    mask = torch.arange(T) < torch.tensor(LENGTHS).unsqueeze(1)
    found = layer(events, mask)
    for user, length in enumerate(LENGTHS):
        expected = by_hand(layer, events[user, :length])
        count = len(expected)
        assert found.present[user].tolist() == [k < count for k in range(len(found.present[user]))]
        torch.testing.assert_close(found.vectors[user, :count], expected, atol=1e-7, rtol=1e-5)
        alone = layer(
            events[user : user + 1, : max(1, length)], mask[user : user + 1, : max(1, length)]
        )
        torch.testing.assert_close(alone.vectors[0, :count], found.vectors[user, :count])


@pytest.mark.parametrize(
    ("events", "interests"),
    [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (7, 2), (8, 3), (15, 3), (16, 4), (60, 4)],
)
def test_mind_finds_more_interests_in_longer_histories(events: int, interests: int) -> None:
    layer = MIND(D, 4, 64)
    mask = torch.arange(64).unsqueeze(0) < events
    assert layer(torch.randn(1, 64, D), mask).present.sum() == interests


def test_routing_learns_through_its_last_iteration_alone() -> None:
    """As if the logits that it ends with had been given."""
    torch.manual_seed(0)
    layer = ComiRecDR(D, K, LENGTH, 2).double()
    events, mask = torch.randn(2, T, D).double(), torch.ones(2, T, dtype=torch.bool)
    leaves = [layer.shared, layer.own]
    grads = torch.autograd.grad(layer(events, mask).vectors.sum(), leaves)
    votes = torch.einsum("btd,tkde->btke", events, layer.maps[:T])
    first = squash((votes.detach() / K).sum(1))
    logits = (votes.detach() * first.unsqueeze(1)).sum(3)
    last = squash((logits.softmax(2).unsqueeze(3) * votes).sum(1))
    torch.testing.assert_close(torch.autograd.grad(last.sum(), leaves), grads)


def test_squash_keeps_the_direction_and_shortens() -> None:
    found = squash(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0.0, 0.0]]) * 25 / 26)


def test_events_are_read_newest_first() -> None:
    places, there = newest_first(torch.tensor([3, 0, 1]), 4)
    assert places.tolist() == [[2, 1, 0, 0], [0] * 4, [0] * 4]
    assert there.sum(1).tolist() == [3, 0, 1]


def test_weights_are_shares_of_the_history() -> None:
    closest, mask = torch.tensor([[0, 2, 2, 1], [0, 0, 0, 0]]), torch.ones(2, 4, dtype=torch.bool)
    mask[0, 3], mask[1] = False, False
    found = shares(closest, mask, torch.tensor([[1.0, 1, 1], [1, 1, 0]]))
    torch.testing.assert_close(found, torch.tensor([[1 / 3, 0, 2 / 3], [0.5, 0.5, 0]]))


# -- the retriever ------------------------------------------------------------------------------


def test_a_target_is_read_from_what_came_before_it(planted: dict[Shape, Examples]) -> None:
    """What training asks is what serving answers for the history up to there."""
    examples = planted["sequences"]
    model = fresh(small("multi_interest", negatives=0, targets_per_user=3), examples).eval()
    table = request_table(model, examples, "train").slice(0, 8)
    history = batch_from(model, table).padded(HISTORY, 9)
    users, ends = draw_targets(history, 3, longest=9, seed=model.seed, step=5)
    assert (history[users, ends] != 0).all() and (ends > 0).all()
    lengths = (history != 0).sum(1)
    assert users.bincount(minlength=8).tolist() == (lengths - 1).clamp(0, 3).tolist()
    total = 0.0
    everything = model.objective.sampler.everything()
    for user, end in zip(users.tolist(), ends.tolist(), strict=True):
        queries = model.encode({HISTORY: history[user : user + 1, :end]})
        target = history[user, end : end + 1]
        scores = queries.vectors[0] @ model.embed_items(target)[0]
        chosen = queries.vectors[0, scores.argmax()]
        logits = model.embed_items(everything) @ chosen / model.config.temperature
        total -= logits.log_softmax(0)[everything == target].item()
    loss = model(batch_from(model, table), 5)
    assert int(loss.weight) == len(users)
    assert loss.total.item() == pytest.approx(total, rel=1e-4)


def test_targets_follow_from_seed_step_and_history_alone() -> None:
    def draw(history: Tensor, seed: int = 0, step: int = 1) -> tuple[Tensor, Tensor]:
        return draw_targets(history, 2, longest=12, seed=seed, step=step)

    history = torch.randint(1, 40, (50, 9), generator=torch.Generator().manual_seed(0))
    _, ends = draw(history)
    _, wider = draw(F.pad(history.flip(0), (0, 3)))
    assert torch.equal(wider.view(50, 2).flip(0), ends.view(50, 2))
    _, later = draw(history, step=2)
    assert not torch.equal(later, ends)
    assert not torch.equal(draw(history, seed=1)[1], ends)
    counts = torch.stack([draw(history, step=s)[1] for s in range(60)]).flatten().bincount()
    assert counts[0] == 0 and counts[1:].min() > 0.8 * counts[1:].max()


@pytest.mark.parametrize("extractor", ["mean", "mind", "comirec_dr", "hcn"])
def test_a_history_is_trained_on_alike_alone_and_in_company(
    extractor: str, planted: dict[Shape, Examples]
) -> None:
    """By every extractor, as conformance asks of the default one."""
    model = fresh(small("multi_interest", extractor=extractor), planted["sequences"])
    table = request_table(model, planted["sequences"], "train").slice(0, 20)
    together = model(batch_from(model, table), 0)
    alone = [model(batch_from(model, table.slice(row, 1)), 0) for row in range(20)]
    assert together.weight == sum(loss.weight for loss in alone)
    torch.testing.assert_close(together.total, sum(loss.total for loss in alone))


@pytest.mark.parametrize("power", [0.0, 1.0, 10.0])
def test_a_label_attends_to_its_interests_by_power(
    power: float, planted: dict[Shape, Examples]
) -> None:
    """0 weighs all that are there alike, much is the best one alone."""
    extractor = {"name": "mind", "interests": 3, "label_power": power}
    model: MultiInterest = fresh(small("multi_interest", extractor=extractor), planted["sequences"])
    vectors, target = F.normalize(torch.randn(1, 3, 16), dim=2), F.normalize(torch.randn(1, 16))
    present = torch.tensor([[True, True, False]])
    temperature = model.config.temperature
    kind = model.config.extractor
    found = kind.choose(Interests(vectors, present), target, temperature)[0]
    logits = ((vectors[0, :2] @ target[0]) / temperature).clamp(min=0) ** power
    torch.testing.assert_close(found, logits.softmax(0) @ vectors[0, :2])
    if power == 0:
        torch.testing.assert_close(found, vectors[0, :2].mean(0))


# -- planted interests --------------------------------------------------------------------------

USERS, CLUSTERS, SIZE, EACH = 300, 12, 12, 3


def write_interests(folder: Path) -> EventLog:
    """Each user has three of twelve clusters of items, and every event is of one at random."""
    rng = np.random.default_rng(3)
    schema = Schema(
        user="user_id",
        item="item_id",
        features=(
            Feature(name="user_id", kind="id", side="user", dtype="int64"),
            Feature(name="item_id", kind="id", side="item", dtype="int64"),
        ),
    )
    rows: list[tuple[int, int, datetime]] = []
    for user in range(USERS):
        own = rng.choice(CLUSTERS, EACH, replace=False)
        clusters = rng.choice(own, 18)
        items = {c: iter(rng.permutation(SIZE)) for c in own}
        day = datetime(2024, 1, 1)
        for event, cluster in enumerate(clusters):
            place = next(items[cluster], None)
            if place is not None:
                rows.append((user, int(cluster * SIZE + place), day + timedelta(days=event)))
    log = EventLog.create(folder, schema)
    columns = zip(*rows, strict=True)
    log.append(pa.table(dict(zip(schema.events_schema().names, columns, strict=True))))
    return log


@pytest.fixture(scope="module")
def interests(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    folder = tmp_path_factory.mktemp("interests")
    return write_planted(write_interests(folder / "log"), folder / "sequences", "sequences")


def test_several_vectors_find_what_one_does_not(
    interests: Examples, group: Group, tmp_path: Path
) -> None:
    """With 12 clusters in 6 dimensions; comirec_dr takes longer, see the benchmark."""
    recall, pure = {}, {}
    rows = interests.vocabulary("item_id").decode(np.arange(interests.num_items))
    clusters = rows.fill_null(0).to_numpy(False).astype(int) // SIZE
    for extractor in ("mean", "mind", "comirec_sa", "hcn"):
        kind = {"name": extractor} | ({} if extractor == "mean" else {"interests": 3})
        options = {"width": 6, "max_length": 18, "negatives": 0}
        config = small("multi_interest", extractor=kind, **options)
        model = learn(config, interests, tmp_path / extractor, group, training(epochs=20))
        recall[extractor] = measure(model, interests, group).metrics["Recall@20"]
        batch = batch_from(model, request_table(model, interests))
        history = batch.padded(HISTORY, 18)
        with torch.no_grad():
            vectors, weights = model.embed_users(batch)
            events = model.embed_items(history.flatten()).unflatten(0, history.shape)
        closest = nearest(vectors, weights > 0, events).numpy()
        known = np.where(history.numpy() != 0, clusters[history.numpy()], -1)
        pure[extractor] = np.nanmean(matched_purity(closest, known))
    several = [name for name in recall if name != "mean"]
    assert all(recall[name] > 1.15 * recall["mean"] for name in several)
    assert all(pure[name] > 1.1 * pure["mean"] for name in several)


@torch.no_grad()
def test_by_quota_an_interest_weighs_its_share_of_the_history(
    planted: dict[Shape, Examples],
) -> None:
    """And 1 otherwise, whatever it has of it; one that is not there weighs nothing."""
    by_score, by_quota = (
        fresh(small("multi_interest", merge=merge), planted["sequences"]).eval()
        for merge in ("score", "quota")
    )
    history = torch.tensor([[1, 2, 3, 9, 10, 17], [4, 0, 0, 0, 0, 0]])
    plain, shared = (model.encode({HISTORY: history}) for model in (by_score, by_quota))
    assert torch.equal(plain.vectors, shared.vectors)
    assert set(plain.weights.flatten().tolist()) <= {0.0, 1.0}
    for user, items in enumerate(history):
        events = by_quota.embed_items(items[items != 0])
        scores = (events @ shared.vectors[user].T).masked_fill(plain.weights[user] == 0, -torch.inf)
        expected = torch.bincount(scores.argmax(1), minlength=scores.shape[1]) / len(events)
        torch.testing.assert_close(shared.weights[user], expected)
