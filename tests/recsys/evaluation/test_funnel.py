"""What is left after each stage of a retriever, and what that is worth, worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from feature_store.columns import TARGET_VALUE
from recsys.data.batch import Batch
from recsys.data.block import Block
from recsys.distributed import Group
from recsys.evaluation.evaluator import Evaluator, Result
from recsys.evaluation.funnel import losses, stages_of
from recsys.evaluation.item_facts import ItemFacts
from recsys.evaluation.options import EvaluationConfig
from recsys.evaluation.summary import summarise
from recsys.inputs import Id
from recsys.lists.funnel import Stage
from recsys.lists.pairs import Pairs
from recsys.lists.stage_names import CANDIDATES
from recsys.retrievers.base import Queries, VectorRetriever

MILLION = 1_000_000
REQUESTS = pa.table(
    {
        "u": [1, 2, 3],
        "history": pa.array([[1], [1], []], pa.list_(pa.int64())),
        "target": pa.array([[2, 3, 4], [5], [2]], pa.list_(pa.int64())),
        TARGET_VALUE: pa.array(
            [[5 * MILLION, 3 * MILLION, 2 * MILLION], [10 * MILLION], [MILLION]]
        ),
    }
)


class Staged(VectorRetriever):
    """One generator finds 2, 3, 5 and 6 for everyone, the other 3 and 6; the ranker keeps three,
    and the list begins with 6."""

    inputs = (Id("u"),)

    def encode(self, inputs: dict[str, Tensor]) -> Queries:
        raise NotImplementedError

    def embed_items(self, rows: Tensor) -> Tensor:
        return torch.zeros(len(rows), 1)

    def stages(self, batch: Batch, k: int, exclude: Pairs | None = None) -> Iterator[Stage]:
        assert exclude is not None and k == 3
        for name, items in (("a", [2, 3, 5, 6]), ("b", [3, 6]), ("coarse", [6, 2, 3])):
            rows = torch.tensor(items).expand(len(batch), -1)
            yield Stage(name, rows, torch.ones(rows.shape))
        rows = torch.tensor([6, 3, 2]).expand(len(batch), -1)
        yield Stage("fine", rows, torch.tensor([3.0, 2, 1]).expand(rows.shape), shown=True)


@pytest.fixture
def result(group: Group) -> Result:
    size = 7
    facts = ItemFacts(
        information=torch.ones(size),
        rarity=torch.ones(size),
        categories=None,
        vectors=torch.zeros(size, 1),
        prices=None,
        members=torch.zeros(size, 1),
        slices=("items=warm",),
    )
    config = EvaluationConfig(ks=(2, 3), slice_k=2)
    evaluator = Evaluator(config, torch.arange(1, 7), user="u", facts=facts)
    return evaluator.evaluate(Staged(), [Block.of(REQUESTS).to_batch()], group)


def test_each_stage_tells_what_is_left_for_every_user(result: Result) -> None:
    """The third user has no history, and nobody is averaged over him."""
    assert stages_of(result.users) == ["a", "b", "coarse", "fine@2"]
    recalls = {stage: result.users[f"stage:{stage}:Recall"].tolist() for stage in ("a", "b")}
    assert recalls == {"a": [pytest.approx(2 / 3), 1], "b": [pytest.approx(1 / 3), 0]}
    assert result.users["stage:coarse:Recall"].tolist() == [pytest.approx(2 / 3), 0]
    assert result.users["stage:fine@2:Recall"].tolist() == [pytest.approx(1 / 3), 0]
    assert result.users["stage:a:GMV"].tolist() == [8, 10]
    assert result.users["stage:fine@2:GMV"].tolist() == [3, 0]
    assert result.users["stage:b:items"].tolist() == [2, 2]
    # the last stage is the list
    assert result.users["recommended"].tolist() == [[6, 3, 2]] * 2
    np.testing.assert_allclose(result.users["Recall@2"], result.users["stage:fine@2:Recall"])
    assert not [name for name in result.figures if name.startswith("stage")]


def test_the_summary_holds_them_with_intervals(result: Result) -> None:
    summary = summarise(result, k=2, replicates=100, labels={})
    funnel = {stage["stage"]: stage for stage in summary["funnel"]}
    assert list(funnel) == ["a", "b", "coarse", "fine@2"]
    assert funnel["a"]["items"] == 4 and funnel["fine@2"]["items"] == 2
    assert funnel["a"]["metrics"] == {
        "Recall": pytest.approx(5 / 6),
        "GMV": pytest.approx(9),
        "GMVCapture": pytest.approx(18 / 20),
    }
    assert funnel["coarse"]["metrics"]["GMVCapture"] == pytest.approx(8 / 20)
    for stage in funnel.values():
        for name, value in stage["metrics"].items():
            low, high = stage["ci95"][name]
            assert low <= value <= high
    fine = funnel["fine@2"]["metrics"]
    assert fine["Recall"] == summary["metrics"]["Recall@2"]
    assert fine["GMVCapture"] == summary["metrics"]["GMVCapture@2"]


def test_a_stage_loses_what_the_one_before_it_had() -> None:
    """Generators lose nothing, and what they find together is where it begins."""
    recall = {"a": 0.5, "b": 0.25, CANDIDATES: 0.75, "coarse": 0.5, "fine@20": 0.375}
    stages = [{"stage": name, "metrics": {"Recall": value}} for name, value in recall.items()]
    assert losses(stages) == [None, None, None, 0.25, 0.125]
