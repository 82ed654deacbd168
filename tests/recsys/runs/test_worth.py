"""What an item is worth to a cascade that orders by money, from what is known of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from feature_store.errors import ConfigError
from recsys.runs.assemble import worth_of

PRICES = torch.tensor([0.0, 10, 4, 8, 0, 5])
COSTS = torch.tensor([0.0, 7, 5, 0, 2, 5])


def examples(**known: Any) -> Any:
    return SimpleNamespace(**{"last_prices": PRICES, "last_costs": COSTS, **known})


def test_profit_is_price_less_cost_where_both_are_known() -> None:
    """The second item is sold at a loss; of the third no cost is known, of the fourth no price."""
    assert worth_of("probability", examples()) is None
    assert worth_of("revenue", examples()).tolist() == PRICES.tolist()  # type: ignore[union-attr]
    assert worth_of("profit", examples()).tolist() == [0, 3, -1, 0, 0, 0]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("order_by", "known", "lacks"),
    [
        ("revenue", {"last_prices": None}, "price"),
        ("profit", {"last_prices": None}, "price"),
        ("profit", {"last_costs": None}, "cost"),
    ],
)
def test_a_log_without_money_orders_by_none(
    order_by: Any, known: dict[str, Any], lacks: str
) -> None:
    with pytest.raises(ConfigError, match=rf"order_by = '{order_by}' needs a {lacks} of items"):
        worth_of(order_by, examples(**known))
