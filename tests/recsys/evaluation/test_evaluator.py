"""Evaluator: hand-computed figures of a retriever whose every score is planted."""

from __future__ import annotations

from dataclasses import replace
from math import log2
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from feature_store.errors import DataError
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.distributed import Group
from recsys.evaluation.evaluator import SLICED, Evaluator, Result
from recsys.evaluation.item_facts import ItemFacts
from recsys.evaluation.options import EvaluationConfig
from recsys.evaluation.summary import summarise
from recsys.inputs import Id
from recsys.lists.merging import BY_QUOTA
from recsys.retrievers.base import Queries, VectorRetriever, single_interest

ALONE = Group(0, 1, torch.device("cpu"))

# scores of items 0 (unknown) to 6, by user; items 5 and 6 of user 2 are a tie
SCORES = torch.tensor(
    [
        [0.0] * 7,
        [99.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0],
        [99.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0],
        [99.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0],
        [99.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        [99.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    ]
)
REQUESTS = pa.table(
    {
        "u": [1, 2, 3, 4, 5],
        "history": pa.array([[1], [6, 6], [2, 1], [], [6, 3]], pa.list_(pa.int64())),
        # user 1 has seen item 1 before, user 5 its only target
        "target": pa.array([[4, 1], [4], [6, 3], [6], [3]], pa.list_(pa.int64())),
    }
)


class Planted(VectorRetriever):
    """A user's score of an item is an entry of a table."""

    inputs = (Id("u"),)

    def __init__(self, scores: Tensor = SCORES) -> None:
        super().__init__()
        self.scores = scores

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        return single_interest(self.scores[inputs["u"]])

    def embed_items(self, rows: Tensor) -> Tensor:
        return torch.eye(self.scores.shape[1])[rows]


class ForEveryone(Planted):
    needs_history = False


def batches(size: int) -> list[Batch]:
    return [
        Block.of(REQUESTS.slice(at, size)).to_batch() for at in range(0, REQUESTS.num_rows, size)
    ]


def evaluate(
    retriever: VectorRetriever | None = None,
    *,
    candidates: tuple[int, ...] = (1, 2, 3, 4, 5),
    ks: tuple[int, ...] = (1, 3),
    size: int = 5,
    **options: Any,
) -> Result:
    evaluator = Evaluator(EvaluationConfig(ks=ks), torch.tensor(candidates), user="u", **options)
    return evaluator.evaluate(retriever or Planted(), batches(size), ALONE)


def test_figures_are_those_computed_by_hand() -> None:
    result = evaluate()
    users = {row["user"]: row for row in result.per_user.to_pylist()}
    # user 4 has no history; user 5's only target was seen
    assert set(users) == {1, 2, 3}
    assert (result.without_history, result.without_targets) == (1, 1)
    assert users[1]["recommended"] == [2, 3, 4]  # 1 is seen, 6 is no candidate
    assert users[2]["recommended"] == [5, 4, 3]
    assert users[3]["recommended"] == [3, 4, 5]  # all equal: the lower row first
    assert [users[u]["targets"] for u in (1, 2, 3)] == [1, 1, 2]
    assert [users[u]["history"] for u in (1, 2, 3)] == [1, 2, 2]
    assert [users[u]["MRR@3"] for u in (1, 2, 3)] == pytest.approx([1 / 3, 1 / 2, 1])
    # item 6 cannot be recommended to user 3: a miss, and still one of two targets
    assert users[3]["Recall@3"] == pytest.approx(1 / 2)
    assert users[3]["NDCG@3"] == pytest.approx(1 / (1 + 1 / log2(3)))
    assert users[3]["NDCG@1"] == 1
    expected = {
        "Recall@1": (0 + 0 + 1 / 2) / 3,
        "HR@1": 1 / 3,
        "HR@3": 1,
        "MRR@3": (1 / 3 + 1 / 2 + 1) / 3,
        "NDCG@3": (1 / 2 + 1 / log2(3) + 1 / (1 + 1 / log2(3))) / 3,
        "Coverage@1": 3 / 5,  # 2, 5 and 3
        "Coverage@3": 4 / 5,
    }
    assert {name: result.metrics[name] for name in expected} == pytest.approx(expected)


def test_with_repeats_allowed_seen_items_are_recommended_and_are_targets() -> None:
    result = evaluate(exclude_seen=False, candidates=(1, 2, 3, 4, 5, 6))
    users = {row["user"]: row for row in result.per_user.to_pylist()}
    assert users[1]["recommended"] == [1, 2, 3] and users[1]["targets"] == 2
    assert users[2]["recommended"] == [5, 6, 4]
    assert result.without_targets == 0 and set(users) == {1, 2, 3, 5}


def test_all_retrievers_are_averaged_over_the_same_users() -> None:
    """Whoever could answer a user without a history is not rewarded, or all are asked."""
    every = (1, 2, 3, 4, 5, 6)
    for retriever in (Planted(), ForEveryone()):
        result = evaluate(retriever, candidates=every)
        assert result.without_history == 1
        assert set(result.per_user["user"].to_pylist()) == {1, 2, 3}
        counted = evaluate(retriever, candidates=every, cold_users="count")
        assert counted.without_history == 0
        assert set(counted.per_user["user"].to_pylist()) == {1, 2, 3, 4}
    found = {r["user"]: r for r in counted.per_user.to_pylist()}
    assert found[4]["recommended"] == [6, 5, 4] and found[4]["HR@1"] == 1
    empty = evaluate(candidates=every, cold_users="count").per_user.to_pylist()[3]
    assert (empty["user"], empty["recommended"], empty["HR@3"]) == (4, [], 0)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_size_of_batches_changes_nothing(size: int) -> None:
    whole, parts = evaluate(), evaluate(size=size)
    assert parts.metrics == pytest.approx(whole.metrics)
    assert parts.per_user.equals(whole.per_user)
    assert (parts.without_history, parts.without_targets) == (1, 1)


def test_a_result_in_parts_is_the_same_table() -> None:
    whole = evaluate()
    tables = [part.per_user for part in whole.parts(2)]
    assert [table.num_rows for table in tables] == [2, len(whole.users["user"]) - 2]
    assert pa.concat_tables(tables).equals(whole.per_user)


def test_lists_may_be_shorter_than_k() -> None:
    result = evaluate(ks=(2, 8))
    assert result.per_user["recommended"].to_pylist()[0] == [2, 3, 4, 5]
    assert [len(scores) for scores in result.per_user["scores"].to_pylist()] == [4, 5, 3]
    assert result.metrics["HR@8"] == 1
    # their end is no hit, also where seen targets were struck out: users have 1, 1 and 2
    assert result.metrics["Recall@8"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert result.metrics["Coverage@8"] == 1


def test_the_order_of_candidates_breaks_ties_alike() -> None:
    result = evaluate(Planted(torch.zeros(6, 7)), exclude_seen=False)
    assert result.per_user["recommended"].to_pylist() == [[1, 2, 3]] * 4


def test_nothing_to_evaluate_is_an_error() -> None:
    evaluator = Evaluator(EvaluationConfig(), torch.tensor([1, 2]), user="u")
    with pytest.raises(DataError, match=r"nothing to evaluate: .* 1 users .*seen = 'include'"):
        evaluator.evaluate(Planted(), [Block.of(REQUESTS.slice(3)).to_batch()], ALONE)
    with pytest.raises(DataError, match=r"none of the 1 users .* has a history.*cold_users"):
        evaluator.evaluate(Planted(), [Block.of(REQUESTS.slice(3, 1)).to_batch()], ALONE)


def test_a_model_is_left_in_the_mode_it_was_in() -> None:
    for training in (True, False):
        retriever = Planted().train(training)
        evaluate(retriever)
        assert retriever.training is training


@pytest.mark.parametrize("ks", [(), (0, 1), (5, 1), (1, 1)])
def test_cut_offs_ascend_from_1(ks: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="ascending positive"):
        EvaluationConfig(ks=ks)


def test_sampled_candidates_are_the_same_for_every_model_and_batch_size() -> None:
    scores = torch.rand(6, 200, generator=torch.Generator().manual_seed(0))
    candidates = tuple(range(1, 200))
    whole = evaluate(Planted(scores), candidates=candidates, ks=(8,), sampled=4)
    lists = whole.per_user["recommended"].to_pylist()
    # the targets that are left and four others, and nothing that was seen
    assert [len(found) for found in lists] == [5, 5, 6]
    assert 4 in lists[0] and 1 not in lists[0] and {3, 6} <= set(lists[2])
    assert whole.metrics["HR@8"] == 1
    other = evaluate(Planted(-scores), candidates=candidates, ks=(8,), sampled=4, size=2)
    assert [set(one) for one in other.per_user["recommended"].to_pylist()] == list(map(set, lists))
    assert (
        evaluate(Planted(scores), candidates=candidates, ks=(8,), sampled=4, seed=1)
        .per_user["recommended"]
        .to_pylist()
        != lists
    )


FACTS = ItemFacts(
    information=torch.tensor([0.0, 1, 2, 3, 4, 5, 6], dtype=torch.float64),
    rarity=torch.tensor([0.0, 1, 1, 0.5, 0.25, 1, 1], dtype=torch.float64),
    # 2 and 3 share a category, the others have one of their own; 5 has none
    categories=torch.tensor(
        [[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    ),
    vectors=torch.nn.functional.pad(torch.eye(6), (0, 0, 1, 0)),
    prices=None,
    members=torch.tensor([[0.0, 0], [1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1]]),
    slices=("half=low", "half=high"),
)


def test_figures_beyond_accuracy_are_those_computed_by_hand() -> None:
    result = evaluate(facts=FACTS)
    # lists [2, 3, 4], [5, 4, 3], [3, 4, 5]; targets {4}, {4}, {6, 3}
    users = result.per_user.to_pylist()
    assert [row["Novelty@3"] for row in users] == [3, 4, 4]
    assert [row["VectorDiversity@3"] for row in users] == pytest.approx([1, 1, 1])
    assert [row["CategoryDiversity@3"] for row in users] == pytest.approx([2 / 3, 1, 1])
    # targets weigh 1/4, 1/4, and 1 + 1/2, of which the 1 is missed
    mean = 2 / 3
    assert result.metrics["StratifiedRecall@3"] == pytest.approx((0.25 + 0.25 + 0.5) / 2)
    assert sum(row["StratifiedRecall@3"] for row in users) == pytest.approx(3 * 0.5)
    assert [row["rarity"] for row in users] == pytest.approx([0.25 / mean, 0.25 / mean, 1.5 / mean])
    assert [row["Recall@3|half=low"] for row in users] == [None, None, 1]
    assert [row["Recall@3|half=high"] for row in users] == [1, 1, 0]
    # the list is the same, and its ideal has the one target of the slice
    assert [row["NDCG@3|half=low"] for row in users] == [None, None, 1]
    assert [row["NDCG@3|half=high"] for row in users] == pytest.approx([1 / 2, 1 / log2(3), 0])
    assert [row["MRR@3|half=low"] for row in users] == [None, None, 1]
    assert [row["MRR@3|half=high"] for row in users] == pytest.approx([1 / 3, 1 / 2, 0])
    counts = np.array([0, 1, 3, 3, 2])  # items 1 to 5
    assert result.metrics["Gini@3"] == pytest.approx(
        sum((2 * i - 6) * c for i, c in enumerate(np.sort(counts), 1)) / (4 * counts.sum())
    )
    precision, recall = result.metrics["Precision@3"], result.metrics["Recall@3"]
    assert result.metrics["F1OfMeans@3"] == pytest.approx(
        2 * precision * recall / (precision + recall)
    )


def test_figures_in_a_slice_are_of_the_whole_list_and_its_own_targets() -> None:
    """User 1 is given 2 to 6: of its targets 2, 3 and 6 two are low, at ranks 1 and 2, and one is
    high, at rank 5. User 2's hits stand at 2 and 4; user 3's low one is beyond the cut-off."""
    targets = pa.array([[6, 3, 2], [4, 2], [1]], pa.list_(pa.int64()))
    history = pa.array([[1], [6], [6]], pa.list_(pa.int64()))
    requests = pa.table({"u": [1, 2, 2], "history": history, "target": targets})
    config = EvaluationConfig(ks=(2, 4, 5), slice_k=4)
    facts = replace(FACTS, members=torch.cat([FACTS.members, FACTS.members.sum(1, True)], 1))
    facts = replace(facts, slices=(*FACTS.slices, "half=either"))
    evaluator = Evaluator(config, torch.arange(1, 7), user="u", facts=facts)
    result = evaluator.evaluate(Planted(), [Block.of(requests).to_batch()], ALONE)
    users = {name: values.tolist() for name, values in result.users.items()}
    nan = pytest.approx(np.nan, nan_ok=True)
    assert users["recommended"] == [[2, 3, 4, 5, 6], [5, 4, 3, 2, 1], [5, 4, 3, 2, 1]]
    assert users["Recall@4|half=low"] == [1, 1, 0]
    assert users["NDCG@4|half=low"] == pytest.approx([1, 1 / log2(5), 0])
    assert users["MRR@4|half=low"] == [1, 1 / 4, 0]
    assert users["Recall@4|half=high"] == [0, 1, nan]
    assert users["NDCG@4|half=high"] == [0, pytest.approx(1 / log2(3)), nan]
    assert users["MRR@4|half=high"] == [0, 1 / 2, nan]
    for name in SLICED:  # a slice of all items has the figures of all
        assert users[f"{name}@4|half=either"] == pytest.approx(users[f"{name}@4"])
    slices = summarise(result, k=4, replicates=100, labels={})["slices"]["half"]
    assert slices["high"]["users"] == 2 and slices["low"]["users"] == 3
    assert slices["high"]["metrics"] == {
        "Recall@4": 0.5, "NDCG@4": pytest.approx(1 / log2(3) / 2), "MRR@4": 0.25
    }  # fmt: skip
    assert slices["high"]["ci95"].keys() == slices["high"]["metrics"].keys()


def test_money_is_that_of_the_targets_found() -> None:
    worth = pa.array([[5_000_000, 9_000_000], [2_500_000], [7_000_000, 0], [1], [1]])
    profit = pa.array([[1_000_000, 9_000_000], [-500_000], [4_000_000, 0], [1], [1]])
    requests = REQUESTS.append_column("target_value", worth)
    requests = requests.append_column("target_profit", profit)
    evaluator = Evaluator(
        EvaluationConfig(ks=(1, 3)), torch.tensor([1, 2, 3, 4, 5]), user="u", facts=FACTS
    )
    result = evaluator.evaluate(Planted(), [Block.of(requests).to_batch()], ALONE)
    users = result.per_user.to_pylist()
    assert [row["value"] for row in users] == [5, 2.5, 7]  # user 1's seen target counts nowhere
    assert [row["GMV@3"] for row in users] == [5, 2.5, 0]  # user 3's is no candidate
    assert [row["GMV@1"] for row in users] == [0, 0, 0]
    assert [row["PriceNDCG@3"] for row in users] == pytest.approx([1 / 2, 1 / log2(3), 0])
    assert result.metrics["GMV@3"] == pytest.approx(2.5)
    assert result.metrics["GMVCapture@3"] == pytest.approx(7.5 / 14.5)
    assert [row["Profit@3"] for row in users] == [1, -0.5, 0]
    assert [row["reachable_profit"] for row in users] == [1, 0, 4]  # a loss need not be shown
    assert result.metrics["Profit@3"] == pytest.approx(0.5 / 3)
    assert result.metrics["ProfitCapture@3"] == pytest.approx(0.5 / 5)


class ByQuota(VectorRetriever):
    """Everyone wants items 1 and 2 more than anyone wants 3 and 4, which get half of the list."""

    inputs = (Id("u"),)
    merge = BY_QUOTA

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        interests = torch.tensor([[0.0, 9, 8, 0, 0], [0.0, 0, 0, 4, 3]])
        count = len(inputs["u"])
        return Queries(interests.expand(count, -1, -1), torch.ones(count, 2))

    def embed_items(self, rows: Tensor) -> Tensor:
        return torch.eye(5)[rows]


def test_a_list_by_quota_is_measured_at_its_own_length() -> None:
    """Of two items the third is one; of four it stands behind the second."""
    requests = pa.table(
        {
            "u": [1],
            "history": pa.array([[4]], pa.list_(pa.int64())),
            "target": pa.array([[3]], pa.list_(pa.int64())),
        }
    )
    evaluator = Evaluator(
        EvaluationConfig(ks=(1, 2, 4)), torch.arange(1, 5), exclude_seen=False, user="u"
    )
    found = evaluator.evaluate(ByQuota(), [Block.of(requests).to_batch()], ALONE)
    assert found.users["recommended"].tolist() == [[1, 2, 3, 4]]
    assert [found.metrics[f"HR@{k}"] for k in (1, 2, 4)] == [0, 1, 1]
    assert found.metrics["NDCG@2"] == pytest.approx(1 / log2(3))
    assert found.metrics["NDCG@4"] == pytest.approx(1 / log2(4))
    # lists of one hold item 1, of two 1 and 3, whatever the longest begins with
    assert found.shorter[2].tolist() == [[1, 3]] and next(found.parts(1)).shorter[1] == [[1]]
    assert [found.metrics[f"Coverage@{k}"] for k in (1, 2, 4)] == [1 / 4, 2 / 4, 1]
    assert set(found.users) == set(found.per_user.column_names)
    assert not any(name.startswith("recommended@") for name in found.users)


def test_coverage_by_quota_counts_the_lists_that_people_get() -> None:
    """All get item 1 first; second comes 3, which the longest list has behind 2. Gini of counts
    [2, 0, 2, 0] is `(-3 * 0 - 1 * 0 + 1 * 2 + 3 * 2) / (3 * 4)`."""
    requests = pa.table(
        {
            "u": [1, 2],
            "history": pa.array([[4], [4]], pa.list_(pa.int64())),
            "target": pa.array([[3], [2]], pa.list_(pa.int64())),
        }
    )
    evaluator = Evaluator(
        EvaluationConfig(ks=(2, 3)), torch.arange(1, 5), exclude_seen=False, user="u"
    )
    found = evaluator.evaluate(ByQuota(), [Block.of(requests).to_batch()], ALONE)
    assert found.metrics["Coverage@2"] == 2 / 4
    assert found.metrics["Gini@2"] == pytest.approx(8 / 12)
    assert found.lists.exposure(found.candidates, np.array([0]))[0] == 2 / 4
    bounds = summarise(found, k=2, replicates=20, labels={})["ci95"]
    assert bounds["Coverage@2"] == [2 / 4, 2 / 4]
