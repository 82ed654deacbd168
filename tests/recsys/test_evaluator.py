"""Evaluator: hand-computed figures of a retriever whose every score is planted."""

from __future__ import annotations

from math import log2

import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from feature_store.errors import DataError
from recsys.batch import Batch
from recsys.evaluation.evaluator import EvaluationConfig, Evaluator, Result
from recsys.inputs import Input
from recsys.retrievers.base import Queries, VectorRetriever, single_interest
from recsys.rows import Rows
from recsys.training.distributed import Group

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
        "history": pa.array([[1], [6, 6], [2, 1], [], [6, 3]], pa.list_(pa.int32())),
        # user 1 has seen item 1 before; users 3 and 5 repeat a target; user 5 has seen its own
        "target": pa.array([[4, 1], [4], [6, 3, 6], [6], [3, 3]], pa.list_(pa.int32())),
    }
)


class Planted(VectorRetriever):
    """A user's score of an item is an entry of a table."""

    inputs = (Input("u", "id"),)

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
        Rows.of(REQUESTS.slice(at, size)).to_batch() for at in range(0, REQUESTS.num_rows, size)
    ]


def evaluate(
    retriever: VectorRetriever | None = None,
    *,
    candidates: tuple[int, ...] = (1, 2, 3, 4, 5),
    ks: tuple[int, ...] = (1, 3),
    exclude_seen: bool = True,
    size: int = 5,
) -> Result:
    config = EvaluationConfig(ks=ks)
    evaluator = Evaluator(config, torch.tensor(candidates), exclude_seen=exclude_seen, user="u")
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


def test_who_needs_no_history_is_measured_on_everyone() -> None:
    result = evaluate(ForEveryone(), candidates=(1, 2, 3, 4, 5, 6))
    assert result.without_history == 0
    assert set(result.per_user["user"].to_pylist()) == {1, 2, 3, 4}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_size_of_batches_changes_nothing(size: int) -> None:
    whole, parts = evaluate(), evaluate(size=size)
    assert parts.metrics == pytest.approx(whole.metrics)
    assert parts.per_user.equals(whole.per_user)
    assert (parts.without_history, parts.without_targets) == (1, 1)


def test_lists_shorter_than_k_end_in_zeros() -> None:
    result = evaluate(ks=(2, 8))
    assert result.per_user["recommended"].to_pylist()[0] == [2, 3, 4, 5, 0, 0, 0, 0]
    assert result.metrics["HR@8"] == 1
    # the zeros are no hits, also where seen targets were struck out: users have 1, 1 and 2
    assert result.metrics["Recall@8"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert result.metrics["Coverage@8"] == 1


def test_the_order_of_candidates_breaks_ties_alike() -> None:
    result = evaluate(Planted(torch.zeros(6, 7)), exclude_seen=False)
    assert result.per_user["recommended"].to_pylist() == [[1, 2, 3]] * 4


def test_nothing_to_evaluate_is_an_error() -> None:
    evaluator = Evaluator(EvaluationConfig(), torch.tensor([1, 2]), exclude_seen=True, user="u")
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluator.evaluate(Planted(), [Rows.of(REQUESTS.slice(3)).to_batch()], ALONE)


def test_a_model_is_left_in_the_mode_it_was_in() -> None:
    for training in (True, False):
        retriever = Planted().train(training)
        evaluate(retriever)
        assert retriever.training is training


@pytest.mark.parametrize("ks", [(), (0, 1), (5, 1), (1, 1)])
def test_cut_offs_ascend_from_1(ks: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="ascending positive"):
        EvaluationConfig(ks=ks)


def test_intervals_are_those_of_a_mean_over_users() -> None:
    result = evaluate()
    users = result.per_user.column("NDCG@3").to_numpy()
    expected = 1.96 * users.std() / len(users) ** 0.5
    assert result.ci95["NDCG@3"] == pytest.approx(expected)
