"""Every retriever of the registry keeps the contract; a new one is tested by being registered."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from conformance import (
    LAYOUTS,
    TRAINED,
    Recorder,
    answer,
    assert_same_answers,
    batch_from,
    bundle_of,
    fresh,
    learn,
    learns_alike_in_bf16,
    measure,
    request_table,
    shape_of,
    small,
    training,
)
from feature_store.columns import HISTORY, HISTORY_TIME
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from planted import Shape, raw_requests, successor
from recsys.data.examples import Examples
from recsys.distributed import Group, join
from recsys.embeddings.options import PerFeature
from recsys.lists.merging import IN_ROUNDS
from recsys.lists.search import search
from recsys.retrievers import RETRIEVERS
from recsys.retrievers.ada_retrieval import AdaRetrieval
from recsys.retrievers.base import Candidates, VectorRetriever
from recsys.retrievers.trained import TrainedRetriever
from recsys.serving.recommender import Recommender
from recsys.training import checkpoint


@dataclass
class Subject:
    """A retriever that has learned the planted log, and its bundle."""

    name: str
    examples: Examples
    retriever: VectorRetriever
    recorder: Recorder
    recommender: Recommender


@pytest.fixture(scope="module", params=list(RETRIEVERS))
def subject(
    request: pytest.FixtureRequest,
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    tmp_path_factory: pytest.TempPathFactory,
) -> Subject:
    name = request.param
    examples = planted[shape_of(name)]
    folder, recorder = tmp_path_factory.mktemp(name), Recorder()
    options: dict[str, Any] = {"listener": recorder} if name in TRAINED else {}
    with join("cpu") as group:
        retriever = learn(small(name), examples, folder / "checkpoints", group, **options)
    recommender = bundle_of(retriever, examples, planted_log, folder / "bundle")
    return Subject(name, examples, retriever, recorder, recommender)


def test_it_learns(subject: Subject, group: Group) -> None:
    """Far better than chance on events it has not seen; the loss falls where there is one."""
    measured = measure(subject.retriever, subject.examples, group)
    left = len(subject.examples.candidates()) - measured.per_user["history"].to_numpy()
    assert measured.metrics["Recall@10"] > 1.5 * np.mean(10 / left)
    losses = [epoch["loss"] for epoch in subject.recorder.epochs]
    assert not losses or losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", ["sasrec", "hstu", "multi_interest"])
def test_known_items_without_training_events_are_not_found_before_the_rest(
    name: str, planted: dict[Shape, Examples], group: Group, tmp_path: Path
) -> None:
    """Untouched vectors would score 0, where those of trained items mostly score below it."""
    examples = copy.copy(planted[shape_of(name)])
    untrained = (examples.train_events == 0).nonzero().flatten()[1:]  # row 0 is no item
    examples.known_events = examples.known_events.index_fill(0, untrained, 1)
    config = small(name, loss="bce", normalise=False, temperature=1.0)
    retriever = learn(config, examples, tmp_path, group)
    lists = answer(retriever, request_table(retriever, examples), k=10).ids
    by_chance = 10 * len(untrained) / len(examples.candidates())
    assert len(untrained) and torch.isin(lists, untrained).sum(1).float().mean() < by_chance / 2


@pytest.mark.parametrize("subject", ["sasrec"], indirect=True)
def test_a_sequence_model_learns_what_follows(subject: Subject, group: Group) -> None:
    """From one item, which no test asks for, to its successor."""
    measured = measure(subject.retriever, subject.examples, group)
    assert measured.metrics["HR@1"] > 0.95
    items = [f"i{item:02d}" for item in range(0, 40, 7)]
    found = subject.recommender.recommend(
        requests=pd.DataFrame({"history": [[item] for item in items]}), k=1
    )
    hits = sum(one == successor(item) for item, one in zip(items, found["item"], strict=True))
    assert hits >= len(items) - 1


@pytest.mark.parametrize("name", ["sasrec", "multi_interest"])
def test_a_sequence_is_trained_on_alike_alone_and_in_company(
    name: str, planted: dict[Shape, Examples]
) -> None:
    """Neither the padding nor the length of others changes its loss."""
    model = fresh(small(name), planted["sequences"])
    assert isinstance(model, TrainedRetriever)
    table = request_table(model, planted["sequences"], "train").slice(0, 30)
    together = model(batch_from(model, table), 0)
    alone = [model(batch_from(model, table.slice(row, 1)), 0) for row in range(30)]
    assert together.weight == sum(loss.weight for loss in alone)
    torch.testing.assert_close(together.total, sum(loss.total for loss in alone))


def test_the_order_of_a_batch_does_not_matter(subject: Subject) -> None:
    table = request_table(subject.retriever, subject.examples)
    order = np.random.default_rng(0).permutation(table.num_rows)
    straight = answer(subject.retriever, table)
    mixed = answer(subject.retriever, table.take(pa.array(order)))
    picked = Candidates(straight.ids[order], straight.scores[order])
    assert_same_answers(picked, mixed, 1e-5)


def test_alone_it_answers_as_in_company(subject: Subject) -> None:
    table = request_table(subject.retriever, subject.examples)
    together = answer(subject.retriever, table)
    for row in range(0, table.num_rows, 15):
        alone = answer(subject.retriever, table.slice(row, 1))
        here = Candidates(together.ids[row : row + 1], together.scores[row : row + 1])
        assert_same_answers(here, alone, 1e-5)


def test_nobody_gets_no_lists(subject: Subject) -> None:
    table = request_table(subject.retriever, subject.examples).slice(0, 0)
    found = answer(subject.retriever, table)
    assert found.ids.shape == found.scores.shape == (0, 10)


def test_it_is_restored_as_it_was_saved(subject: Subject, group: Group, tmp_path: Path) -> None:
    """From a checkpoint with its weights, or, where it is fitted, by being fitted again."""
    if subject.name in TRAINED:
        checkpoint.save(tmp_path / "saved", subject.retriever, None, {}, group)
        other = fresh(small(subject.name), subject.examples, seed=1).eval()
        checkpoint.load_unsharded(tmp_path / "saved", other)
        other.prepare(subject.examples.candidates())
    else:
        other = learn(small(subject.name), subject.examples, tmp_path, group)
    table = request_table(other, subject.examples)
    before, after = answer(subject.retriever, table), answer(other, table)
    assert torch.equal(before.ids, after.ids) and torch.equal(before.scores, after.scores)


def test_its_bundle_answers_as_the_evaluator_asks(subject: Subject) -> None:
    assert_bundle_agrees(subject.retriever, subject.examples, subject.recommender)


def assert_bundle_agrees(
    retriever: VectorRetriever, examples: Examples, recommender: Recommender
) -> None:
    requests = raw_requests(examples)
    expected = answer(retriever, request_table(retriever, examples))
    found = recommender.recommend(requests=requests, k=10)
    assert found["user"].tolist() == np.repeat(requests["user_id"], 10).tolist()
    ids = examples.vocabulary(examples.schema.item).encode(pa.array(found["item"]))
    scores = torch.tensor(found["score"].to_numpy()).view(len(requests), 10)
    got = Candidates(torch.tensor(ids).view(len(requests), 10), scores)
    assert_same_answers(expected, got)


def test_it_never_repeats_nor_shows_what_is_excluded(subject: Subject) -> None:
    retriever, examples = subject.retriever, subject.examples
    table = request_table(retriever, examples)
    candidates = set(examples.candidates().tolist())
    seen = table.column(HISTORY).to_pylist()
    for ids, scores, history in zip(*answer(retriever, table, 15), seen, strict=True):
        found = ids.tolist()
        assert len(set(found)) == len(found) and set(found) <= candidates - set(history)
        assert scores.isfinite().all()
        rounds = [scores] if retriever.merge is not IN_ROUNDS else scores.split(round_of(retriever))
        assert all((one.diff() <= 0).all() for one in rounds)


def round_of(retriever: VectorRetriever) -> int:
    """How many places of a list one round fills."""
    assert isinstance(retriever, AdaRetrieval)
    return retriever.config.round_size


def test_a_list_longer_than_the_catalogue_is_short(subject: Subject) -> None:
    table = request_table(subject.retriever, subject.examples)
    found = answer(subject.retriever, table, 1000)
    count = len(subject.examples.candidates())
    left = torch.tensor([count - len(set(row)) for row in table.column(HISTORY).to_pylist()])
    assert torch.equal((found.ids != 0).sum(1), left)
    assert torch.equal(found.scores.isfinite().sum(1), left)
    requests = raw_requests(subject.examples).head(3)
    frame = subject.recommender.recommend(requests=requests, k=1000)
    assert frame.groupby("user").size().tolist() == left[:3].tolist()


def test_an_empty_history_is_answered_by_the_model_or_the_fallback(subject: Subject) -> None:
    nobody = pd.DataFrame({"user_id": [5, 7], "history": [["i07"], []]})
    found = subject.recommender.recommend(requests=nobody, k=4)
    assert found["user"].tolist() == [5] * 4 + [7] * 4
    needs_history = subject.retriever.needs_history
    assert found["fallback"].tolist() == [False] * 4 + [needs_history] * 4
    if needs_history:
        with pytest.raises(DataError, match=r"request 1 \(user 7\) .* history") as caught:
            subject.recommender.recommend(requests=nobody, strict=True)
        assert "\n" not in str(caught.value)


def test_an_empty_history_never_makes_nan(subject: Subject) -> None:
    """The evaluator asks all users at once, also those whom it leaves out afterwards."""
    table = request_table(subject.retriever, subject.examples).slice(0, 6)
    lists = [name for name in table.column_names if name in (HISTORY, HISTORY_TIME)]
    for kept in (6, 1):  # all histories are emptied, or the first
        emptied = table
        for name in lists:
            column, place = table.column(name), table.column_names.index(name)
            rows = [[]] * kept + column.to_pylist()[kept:]
            emptied = emptied.set_column(place, name, pa.array(rows, column.type))
        found = answer(subject.retriever, emptied)
        assert not found.scores.isnan().any() and (found.ids != 0).all()
    whole = answer(subject.retriever, table)
    others = Candidates(whole.ids[1:], whole.scores[1:])
    assert_same_answers(others, Candidates(found.ids[1:], found.scores[1:]), 1e-5)


def test_scores_are_inner_products_of_the_vectors(subject: Subject) -> None:
    """What an index searches is what the evaluator ranked."""
    retriever, examples = subject.retriever, subject.examples
    batch = batch_from(retriever, request_table(retriever, examples))
    candidates = examples.candidates()
    with torch.no_grad():
        queries = retriever.embed_users(batch)
    assert queries.weights.shape == queries.vectors.shape[:2] and (queries.weights >= 0).all()
    items = retriever.item_matrix(candidates, chunk=7)
    scores, places = search(*queries, items, 10, merge=retriever.merge)
    plain = retriever.retrieve(batch, 10)
    assert_same_answers(plain, Candidates(candidates[places], scores), 1e-5)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "per_feature"])
@pytest.mark.parametrize(
    "name", [name for name in TRAINED if name not in ("unisrec", "recformer")]
)  # which have no tables
def test_every_layout_learns_and_serves(
    name: str,
    layout: str,
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    group: Group,
    tmp_path: Path,
) -> None:
    examples, recorder = planted[shape_of(name)], Recorder()
    retriever = learn(
        small(name),
        examples,
        tmp_path / "checkpoints",
        group,
        training(epochs=8),
        embeddings=LAYOUTS[layout],
        listener=recorder,
    )
    assert recorder.epochs[-1]["loss"] < 0.8 * recorder.epochs[0]["loss"]
    weights = sum(p.numel() for n, p in retriever.named_parameters() if "embeddings" in n)
    assert weights * 4 <= 1.05 * 1e6 * getattr(LAYOUTS[layout], "budget_mb", 0)
    recommender = bundle_of(retriever, examples, planted_log, tmp_path / "bundle")
    assert_bundle_agrees(retriever, examples, recommender)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sasrec", {"max_length": 1}),
        ("sasrec", {"normalise": False, "temperature": 1.0, "log_q": True}),
        ("two_tower", {"max_length": 1}),
        ("two_tower", {"item_features": ["list_price"]}),
        ("two_tower", {"item_features": ["words"], "user_features": ["user_id", "badges"]}),
        ("multi_interest", {"extractor": "mean"}),
        ("multi_interest", {"extractor": "mind"}),
        ("multi_interest", {"extractor": "mind", "merge": "quota"}),
        ("multi_interest", {"extractor": "comirec_dr", "hard_negatives": 2}),
        ("multi_interest", {"extractor": {"name": "hcn", "short_length": 3}, "merge": "quota"}),
        ("multi_interest", {"merge": "quota"}),
        ("multi_interest", {"max_length": 1, "targets_per_user": 1}),
        ("ada_retrieval", {"rounds": 1}),
        ("ada_retrieval", {"rounds": 3, "list_size": 3, "targets_per_user": 1}),
        ("ada_retrieval", {"backbone": {"negatives": 8, "hard_negatives": 2}}),
        ("ada_retrieval", {"backbone": {"text": {"adapter": "experts"}}}),
        ("sasrec", {"text": {"attributes": ["blurb"], "id_dropout": 1.0}}),
        ("hstu", {"text": {"dimensions": 2}}),
        ("unisrec", {"text": {"adapter": "linear"}}),
        ("recformer", {"max_length": 2, "hard_negatives": 2}),
        ("recformer", {"width": 8, "text": {"max_tokens": 24, "separator": True}}),
        ("two_tower", {"text": {}}),
        ("sasrec", {"negatives": 16, "negative_sets": 5, "log_q": True}),
        ("graph", {"propagation": "sheaf"}),
        ("graph", {"propagation": "none", "loss": "bce", "regularisation": 0.0}),
        (
            "graph",
            {
                "propagation": {"name": "lightgcn", "layers": 1},
                "hard_negatives": 2,
                "normalise": True,
                "temperature": 0.2,
            },
        ),
    ],
)
def test_options_at_their_edges_learn_and_serve(
    name: str,
    options: dict[str, Any],
    planted: dict[Shape, Examples],
    planted_log: EventLog,
    group: Group,
    tmp_path: Path,
) -> None:
    examples, recorder = planted[shape_of(name)], Recorder()
    retriever = learn(
        small(name, **options),
        examples,
        tmp_path / "checkpoints",
        group,
        training(epochs=4),
        listener=recorder,
    )
    assert recorder.epochs[-1]["loss"] < recorder.epochs[0]["loss"]
    recommender = bundle_of(retriever, examples, planted_log, tmp_path / "bundle")
    assert_bundle_agrees(retriever, examples, recommender)


BF16: list[tuple[str, dict[str, Any], bool]] = [
    *((name, {}, sharded) for name in TRAINED for sharded in (False, True)),
    *(("sasrec", {"loss": loss}, False) for loss in ("gbce", "bce", "bpr")),
    ("sasrec", {"block": "gated"}, False),
    ("sasrec", {"log_q": True, "matryoshka": (4,)}, False),
    ("hstu", {"time_bias": False, "hard_negatives": 2}, False),
    *(("multi_interest", {"extractor": kind}, False) for kind in ("mean", "mind", "comirec_dr")),
    ("multi_interest", {"extractor": {"name": "hcn", "short_length": 3}}, False),
    ("graph", {"propagation": "sheaf", "hard_negatives": 2}, False),
    ("two_tower", {"hard_negatives": 2, "log_q": False}, False),
]


@pytest.mark.parametrize(("name", "options", "sharded"), BF16)
def test_it_learns_in_bf16_as_in_fp32(
    name: str,
    options: dict[str, Any],
    sharded: bool,
    planted: dict[Shape, Examples],
    group: Group,
    tmp_path: Path,
) -> None:
    embeddings = PerFeature(shard_above_mb=0 if sharded else 64)
    config, examples = small(name, **options), planted[shape_of(name)]
    assert learns_alike_in_bf16(config, examples, tmp_path, group, embeddings=embeddings)
