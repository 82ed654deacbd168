"""Cascades of planted models: what every stage finds, keeps and shows is worked out by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import Tensor

from feature_store.columns import HISTORY
from feature_store.errors import ConfigError, DataError
from recsys.cascade.cascade import Cascade
from recsys.cascade.generator import Generator
from recsys.cascade.ranking import Ranking
from recsys.cascade.translation import Translation
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.inputs import Bag, History, Id, Number, Times
from recsys.lists.funnel import Diversity
from recsys.lists.pairs import Pairs
from recsys.rankers.base import Ranker, State
from recsys.retrievers.base import Queries, VectorRetriever, single_interest

EVERY = torch.arange(1, 7)
REQUESTS = pa.table(
    {
        "u": [1, 2, 3],
        "history": pa.array([[1], [6, 2], []], pa.list_(pa.int64())),
    }
)


class Finder(VectorRetriever):
    """Finds everyone the items of a table of scores, by item row, best first."""

    def __init__(self, scores: list[float], *, needs_history: bool = False) -> None:
        super().__init__()
        self.inputs = (History("item", 2),)
        self.needs_history = needs_history
        self.table = torch.tensor([0.0, *scores])

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        return single_interest(self.table.expand(len(inputs[HISTORY]), -1))

    def embed_items(self, rows: Tensor) -> Tensor:
        return torch.eye(len(self.table))[rows]


class Judge(Ranker):
    """The logit of an item, by user row and item row."""

    item = "item"
    inputs = (Id("u"),)

    def __init__(self, table: list[list[float]]) -> None:
        super().__init__()
        self.table = torch.tensor([[0.0] * 7, *([0.0, *row] for row in table)])
        self.encoded = 0
        self.most = 0

    def encode(self, inputs: dict[str, Tensor]) -> State:
        self.encoded += len(inputs["u"])
        return {"user": inputs["u"]}

    def score(self, state: State, items: Tensor) -> Tensor:
        self.most = max(self.most, items.numel())
        return self.table[state["user"]].gather(1, items).unsqueeze(2)

    def logits(self, inputs: dict[str, Tensor], items: Tensor) -> Tensor:
        return self.score(self.encode(inputs), items)


SAME = Translation("item", {})
POPULAR = [6.0, 5, 4, 3, 2, 1]
LIKED = [0.0, 0, 1, 2, 3, 4]
TASTES = [[0.0, 0, 3, 2, 1, 0], [5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]]


def ranking(table: list[list[float]], translation: Translation = SAME) -> Ranking:
    return Ranking(Judge(table), "label", translation)


def cascade(**options: Any) -> Cascade:
    """Two of the popular ones, and two of those that are liked where there is a history."""
    generators = {
        "popular": Generator(Finder(POPULAR), 2, SAME),
        "liked": Generator(Finder(LIKED, needs_history=True), 2, SAME),
    }
    made = Cascade(**{"generators": generators, **options})
    made.prepare(EVERY)
    return made.eval()


def batch(rows: pa.Table = REQUESTS) -> Batch:
    return Block.of(rows).to_batch()


def lists(model: Cascade, k: int = 10, **options: Any) -> list[list[int]]:
    asked = options.pop("asked", None) or batch()
    exclude = Pairs.of_padded(asked.padded(HISTORY))
    found = model.retrieve(asked, k, exclude)
    assert found.ids.shape == found.scores.shape and found.ids.shape[1] <= k
    assert (found.scores[found.ids == 0] == float("-inf")).all()
    return [[item for item in row if item] for row in found.ids.tolist()]


def stages(model: Cascade) -> dict[str, list[list[int]]]:
    asked = batch()
    return {
        stage.name: [[item for item in row if item] for row in stage.items.tolist()]
        for stage in model.stages(asked, 10, Pairs.of_padded(asked.padded(HISTORY)))
    }


def test_generators_keep_to_their_budgets_and_leave_out_what_was_seen() -> None:
    left = stages(cascade(fine=ranking(TASTES)))
    assert left["popular"] == [[2, 3], [1, 3], [1, 2]]  # 1 was seen, then 2 and 6, then nothing
    assert left["liked"] == [[6, 5], [5, 4], []]  # the last user has no history
    assert [sorted(row) for row in left["candidates"]] == [[2, 3, 5, 6], [1, 3, 4, 5], [1, 2]]


def test_the_rankers_keep_and_order() -> None:
    coarse, fine = ranking([POPULAR] * 3), ranking(TASTES)
    model = cascade(coarse=coarse, keep=3, fine=fine)
    left = stages(model)
    assert left["coarse"] == [[2, 3, 5], [1, 3, 4], [1, 2]]
    assert left["fine"] == [[3, 5, 2], [1, 3, 4], [2, 1]]
    assert lists(model, 2) == [[3, 5], [1, 3], [2, 1]]
    assert lists(model, 10) == left["fine"]  # k beyond keep: the list ends


def test_a_request_is_encoded_once_and_scored_in_chunks() -> None:
    fine = ranking(TASTES)
    judge: Any = fine.ranker
    scored = fine.scoring(batch(), pairs=4)(EVERY.expand(3, 6) - 0)
    assert scored.tolist() == TASTES
    assert judge.encoded == 3 and judge.most == 4
    assert lists(cascade(fine=fine)) == [[3, 5, 2, 6], [1, 3, 4, 5], [2, 1]]


def test_money_orders_and_categories_mix() -> None:
    worth = torch.tensor([0.0, 1, 1, 1, 1, 1, 100])
    assert lists(cascade(fine=ranking(TASTES), worth=worth))[0] == [6, 3, 5, 2]
    diverse = Diversity(torch.tensor([0, 1, 1, 2, 2, 2, 2]), 9.0)
    assert lists(cascade(fine=ranking(TASTES), diversity=diverse), 2)[0] == [3, 2]


def test_it_needs_a_history_where_all_its_generators_do() -> None:
    assert not cascade().needs_history
    needy = {"liked": Generator(Finder(LIKED, needs_history=True), 2, SAME)}
    assert cascade(generators=needy).needs_history


def test_each_generator_is_a_variant() -> None:
    variants = cascade(fine=ranking(TASTES)).variants()
    assert list(variants) == ["popular", "liked"]
    liked = variants["liked"]
    liked.prepare(EVERY)
    asked = batch()
    found = liked.retrieve(asked, 5, Pairs.of_padded(asked.padded(HISTORY)))
    assert found.ids.tolist() == [[6, 5], [5, 4], [0, 0]] and liked.needs_history


def test_it_says_when_it_is_not_prepared() -> None:
    model = Cascade({"popular": Generator(Finder(POPULAR), 2, SAME)})
    with pytest.raises(RuntimeError, match="prepare"):
        model.retrieve(batch(), 1)


def test_inputs_are_merged_by_name_and_the_longest_list_is_read() -> None:
    long, short = Finder(LIKED), Finder(POPULAR)
    long.inputs = (History("item", 9),)
    made = Cascade(
        {"a": Generator(short, 1, SAME), "b": Generator(long, 1, SAME)}, fine=ranking(TASTES)
    )
    assert made.inputs == (History("item"), Id("u"))  # what was seen is read whole
    without = Cascade({"a": Generator(short, 1, SAME)}, fine=ranking(TASTES), known={HISTORY})
    assert without.inputs == (History("item"),) and without.unknown == ("u",)
    assert without.notes == ("unknown to the cascade's parts: u, which only events tell",)
    long.inputs = (History("other", 9),)
    with pytest.raises(ConfigError, match="different things under the name 'history'"):
        Cascade({"a": Generator(short, 1, SAME), "b": Generator(long, 1, SAME)})


# Parts with other vocabularies


def reversed_rows() -> Translation:
    """The part has 5 items in the opposite order and does not know item 6; nor user 3."""
    there = torch.tensor([0, 5, 4, 3, 2, 1, 0])
    back = torch.tensor([0, 5, 4, 3, 2, 1])
    return Translation("item", {"item": there, "u": torch.tensor([0, 2, 1, 0])}, back)


def test_parts_are_asked_and_answer_in_their_own_rows() -> None:
    """A retriever that prefers its rows 1, 2, ... finds our 5, 4, ..., and never 6."""
    other = Generator(Finder([5.0, 4, 3, 2, 1]), 3, reversed_rows())
    assert stages(cascade(generators={"other": other}))["other"] == [
        [5, 4, 3],
        [5, 4, 3],
        [5, 4, 3],
    ]
    seen = batch(pa.table({"u": [1], "history": pa.array([[5, 3]], pa.list_(pa.int64()))}))
    assert lists(cascade(generators={"other": other}), asked=seen) == [[4, 2, 1]]


def test_rankers_of_other_vocabularies_know_whom_and_what_they_judge() -> None:
    """Our users 1 and 2 are its 2 and 1; our items 1 to 5 its 5 to 1, and 6 is unknown to it."""
    table = [[1.0, 2, 3, 4, 5, 9], [10, 20, 30, 40, 50, 9]]
    scored = ranking(table, reversed_rows()).scoring(batch())(EVERY.expand(3, 6))
    assert scored[0].tolist() == [50, 40, 30, 20, 10, 0]
    assert scored[1].tolist() == [5, 4, 3, 2, 1, 0]
    assert scored[2].tolist() == [0] * 6


def test_lists_lose_what_a_part_does_not_know_as_raw_requests_do() -> None:
    """Also the moments of such events; and what a batch lacks is unknown."""
    rows = pa.table(
        {
            "history": pa.array([[6, 1, 2], [6], []], pa.list_(pa.int64())),
            "history_time": pa.array([[10, 20, 30], [40], []], pa.list_(pa.int64())),
        }
    )
    history = History("item", 2)
    asked = (history, Times(history), Id("u"), Number("age", "nan"), Number("n"), Bag("tags"))
    read = reversed_rows().batch(batch(rows), asked)
    assert history.from_batch(read).tolist() == [[5, 4], [0, 0], [0, 0]]
    assert Times(history).from_batch(read).tolist() == [[20, 30], [0, 0], [0, 0]]
    assert read.id("u").tolist() == [0, 0, 0] and read.column("n").tolist() == [0, 0, 0]
    assert read.column("age").isnan().all() and read.padded("tags").tolist() == [[0]] * 3


def test_a_history_of_unknown_items_is_none() -> None:
    needy = Generator(Finder([5.0, 4, 3, 2, 1], needs_history=True), 3, reversed_rows())
    unknown = batch(pa.table({"u": [1, 1], "history": pa.array([[6], [6, 1]])}))
    assert lists(cascade(generators={"needy": needy}), asked=unknown) == [[], [5, 4, 3]]


def test_a_generator_that_knows_no_candidate_is_refused() -> None:
    other = Generator(Finder(POPULAR), 1, Translation("item", {"item": torch.zeros(7).long()}))
    with pytest.raises(DataError, match="knows none of the items"):
        Cascade({"other": other}).prepare(EVERY)
