"""Nested vectors: what their prefixes find, alone and as a shortlist, here and in the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from conformance import (
    answer,
    assert_same_answers,
    bundle_of,
    fresh,
    learn,
    measure,
    request_table,
    small,
)
from feature_store.errors import ConfigError
from feature_store.event_log import EventLog
from planted import Shape, raw_requests
from recsys.config import parse_config
from recsys.data.examples import Examples
from recsys.distributed import Group, join
from recsys.retrievers.prefix import Prefix, Shortlisted
from recsys.retrievers.trained import TrainedRetriever
from recsys.serving.index.base import Queries
from recsys.serving.index.kinds import recall_against_exact
from recsys.serving.index.options import PrefixConfig
from recsys.serving.index.prefix import PrefixIndex


@pytest.fixture(scope="module")
def examples(planted: dict[Shape, Examples]) -> Examples:
    return planted["sequences"]


@pytest.fixture(scope="module")
def nested(examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> TrainedRetriever:
    folder = tmp_path_factory.mktemp("nested")
    with join("cpu") as group:
        trained = learn(small("sasrec", matryoshka=(4, 8)), examples, folder, group)
    assert isinstance(trained, TrainedRetriever)
    return trained


def test_prefixes_learn_too_and_better_than_those_of_a_plain_model(
    nested: TrainedRetriever, examples: Examples, group: Group, tmp_path: Path
) -> None:
    plain = learn(small("sasrec"), examples, tmp_path / "plain", group)
    recall = {
        name: measure(Prefix(model, 4), examples, group).metrics["HR@1"]
        for name, model in (("nested", nested), ("plain", plain))
    }
    assert recall["nested"] > 0.8 and recall["nested"] > recall["plain"]


def test_a_shortlist_of_everything_is_the_whole_retriever(
    nested: TrainedRetriever, examples: Examples
) -> None:
    table = request_table(nested, examples)
    short = Shortlisted(nested, 4, 1000)
    short.prepare(examples.candidates())
    assert_same_answers(answer(nested, table), answer(short, table), 1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("multi_interest", {"merge": "quota", "matryoshka": (4,)}),
        ("ada_retrieval", {"backbone": {"matryoshka": (4,)}}),
    ],
)
def test_a_shortlist_of_everything_is_merged_as_the_whole_is(
    name: str, options: dict[str, Any], examples: Examples
) -> None:
    """By quota, and round after round."""
    model = fresh(small(name, **options), examples).eval()
    model.prepare(examples.candidates())
    (width, short) = model.variants().values()
    short.prepare(examples.candidates())
    table = request_table(model, examples)
    assert_same_answers(answer(model, table, 10), answer(short, table, 10), 1e-6)
    width.prepare(examples.candidates())
    assert answer(width, table, 10).ids.shape == (table.num_rows, 10)


def test_a_shortlist_is_chosen_by_the_prefix_and_ranked_by_the_whole(
    nested: TrainedRetriever, examples: Examples
) -> None:
    table = request_table(nested, examples)
    prefix, short = Prefix(nested, 4), Shortlisted(nested, 4, 5)
    for one in (prefix, short):
        one.prepare(examples.candidates())
    chosen, found = answer(prefix, table, 5), answer(short, table, 5)
    assert torch.equal(chosen.ids.sort(1).values, found.ids.sort(1).values)
    whole = dict(zip(("ids", "scores"), answer(nested, table, 1000), strict=True))
    place = (whole["ids"].unsqueeze(1) == found.ids.unsqueeze(2)).int().argmax(2)
    torch.testing.assert_close(whole["scores"].gather(1, place), found.scores)


def test_the_bundle_shortlists_as_the_evaluator_does(
    nested: TrainedRetriever, examples: Examples, planted_log: EventLog, tmp_path: Path
) -> None:
    index = PrefixConfig(prefix=8, shortlist=20, recall_target=0.1)
    recommender = bundle_of(nested, examples, planted_log, tmp_path / "bundle", index)
    assert isinstance(recommender.generator.index, PrefixIndex)
    found = recommender.recommend(requests=raw_requests(examples), k=10)
    short = Shortlisted(nested, 8, 20)
    short.prepare(examples.candidates())
    expected = answer(short, request_table(nested, examples))
    scores = torch.tensor(found["score"].to_numpy()).view(-1, 10)
    torch.testing.assert_close(scores, expected.scores, atol=1e-4, rtol=0)


def test_the_recall_of_prefixes_that_say_little_is_low() -> None:
    """The export measures it, and refuses an index that misses its target."""
    items, queries = torch.randn(2, 2000, 16).unbind()
    asked = Queries(queries[:50].unsqueeze(1), torch.ones(50, 1), "here")
    recall = [
        recall_against_exact(PrefixIndex(items, "here", 2, length), asked)
        for length in (100, 500, 2000)
    ]
    assert recall[0] < recall[1] < recall[2] == 1.0


def test_items_added_later_are_found(nested: TrainedRetriever, examples: Examples) -> None:
    items = nested.item_matrix(examples.candidates())
    index = PrefixIndex(items[:-1], "here", 4, 3)
    index.add(items[-1:], "here")
    query = Queries(items[-1:].unsqueeze(1), torch.ones(1, 1), "here")
    _, places = index.search(query, 1)
    assert places.item() == len(items) - 1


def test_a_prefix_that_was_not_trained_is_refused_by_name() -> None:
    tree = {
        "name": "x",
        "data": {"source": "synthetic"},
        "retriever": {"name": "sasrec", "matryoshka": [8]},
        "export": {"index": {"kind": "prefix", "prefix": 16}},
    }
    with pytest.raises(ConfigError, match=r"export.index.prefix: 16 .* choose one of: 8"):
        parse_config(tree)
