"""What a scored row is expected to bring: probability times price, or that less its cost."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from feature_store.errors import DataError
from recsys.serving.scorer import COSTS, PRICES, Scorer


class Half(Scorer):
    """Gives every row a probability of a half, the second task a quarter; knows six items."""

    def __init__(self, folder: Path, **record: Any) -> None:
        told = {"tasks": ("label", "buys"), "priced": True, "costed": True, **record}
        super().__init__(cast(Any, SimpleNamespace(
            folder=folder,
            schema=SimpleNamespace(item="item", price="paid", cost="spent"),
            part=lambda kind, name: ("ranker", SimpleNamespace(**told)),
            program=lambda part, name: None,
            part_file=lambda part, name: folder / name,
            vocabularies_of=lambda part: {},
        )))  # fmt: skip

    def _pairs(self, requests: pa.Table) -> tuple[pa.Table, Tensor]:
        return requests, torch.tensor(requests["item"].to_pylist()).unsqueeze(1)

    def logits(self, requests: pa.Table, items: Tensor) -> Tensor:
        """[B, 1, 2]."""
        return torch.tensor([0.0, np.log(1 / 3)]).expand(len(items), 1, 2)


@pytest.fixture
def half(tmp_path: Path) -> Half:
    np.save(tmp_path / PRICES, np.array([0.0, 10, 4, 8, 0, 5]))
    np.save(tmp_path / COSTS, np.array([0.0, 7, 5, 0, 2, 5]))
    return Half(tmp_path)


def test_it_is_made_of_what_was_known_last(half: Half) -> None:
    """The second item is sold at a loss; of the third no cost is known, of the fourth no price, of
    an unknown item nothing."""
    asked = pd.DataFrame({"item": [1, 2, 3, 4, 5, 0]})
    scored = half.score(asked, expect="revenue")
    assert scored["expected_revenue"].tolist() == [5, 2, 4, 0, 2.5, 0]
    assert list(scored.columns) == ["item", "probability", "expected_revenue"]
    buys = half.score(asked, task="buys", expect="profit")
    assert buys["expected_profit"].tolist() == pytest.approx([0.75, -0.25, 0, 0, 0, 0])
    assert list(half.score(asked).columns) == ["item", "probability"]
    again = half.score_table(pa.Table.from_pandas(scored), expect="revenue")
    assert again.column_names == ["item", "probability", "expected_revenue"]


def test_what_a_request_says_of_money_comes_first(half: Half) -> None:
    asked = pd.DataFrame({"item": [1, 1, 1], "paid": [20, None, 20], "spent": [None, 8, 30]})
    assert half.score(asked, expect="revenue")["expected_revenue"].tolist() == [10, 5, 10]
    profit = half.score(asked, expect="profit")["expected_profit"]
    assert profit.tolist() == pytest.approx([6.5, 1, -5])
    with pytest.raises(DataError, match="column 'paid' of the requests cannot be read"):
        half.score(pd.DataFrame({"item": [1], "paid": ["much"]}), expect="revenue")


@pytest.mark.parametrize(
    ("record", "what", "lacks"),
    [({"priced": False, "costed": False}, "revenue", "price"),
     ({"priced": False}, "profit", "price"), ({"costed": False}, "profit", "cost")],
)  # fmt: skip
def test_a_log_without_money_expects_none(
    half: Half, record: dict[str, Any], what: Any, lacks: str
) -> None:
    without = Half(half.bundle.folder, **record)
    with pytest.raises(DataError, match=rf"knows no {lacks} of items, which an expected {what}"):
        without.score(pd.DataFrame({"item": [1]}), expect=what)
