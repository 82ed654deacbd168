"""A total of a line that is given as a price is said at ingest; discounts are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_store.ingest import IngestReport, ingest
from feature_store.sources.parquet import Columns, ParquetLog

Price = Callable[[np.ndarray, np.ndarray], np.ndarray]
PRICES: dict[str, tuple[Price, str | None]] = {
    "of one piece": (lambda unit, quantity: unit, None),
    "with discounts": (lambda unit, quantity: unit * quantity**-0.3, None),
    "the line's total": (lambda unit, quantity: unit * quantity, "grows"),
    "divided by the quantity": (lambda unit, quantity: unit / quantity, "falls"),
}


def ingested(folder: Path, price: Price, rows: int = 400) -> IngestReport:
    """A grocer's log: 20 items at prices of 1 to 20 and 5 % around them, 1 to 12 pieces."""
    random = np.random.default_rng(1)
    item, quantity = random.integers(1, 21, rows), random.integers(1, 13, rows)
    unit = item * np.exp(0.05 * random.standard_normal(rows))
    events = {
        "user": random.integers(1, 30, rows),
        "item": item,
        "time": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows), "h"),
        "total": price(unit, quantity),
        "pieces": np.where(np.arange(rows) % 10, quantity, -1),  # and returns
    }
    pd.DataFrame(events).to_parquet(folder / "events.parquet")
    columns = Columns(user="user", item="item", time="time", price="total", quantity="pieces")
    return ingest(ParquetLog(path=str(folder / "events.parquet"), columns=columns), folder / "log")


@pytest.mark.parametrize("name", PRICES)
def test_a_price_that_moves_with_the_quantity_is_doubtful(tmp_path: Path, name: str) -> None:
    price, moves = PRICES[name]
    doubts = ingested(tmp_path, price).doubts
    if moves is None:
        assert doubts == ()
        return
    (doubt,) = doubts
    assert f"the price of an item (total) {moves} with the quantity (pieces)" in doubt
    times = {"grows": 2.0, "falls": 0.5}[moves]
    told = float(doubt.partition("have ")[2].split()[0])
    assert told == pytest.approx(times, abs=0.05) and "360 events" in doubt
    assert IngestReport.load(tmp_path / "log").doubts == doubts


def test_a_few_events_say_nothing(tmp_path: Path) -> None:
    assert ingested(tmp_path, lambda unit, quantity: unit * quantity, rows=15).doubts == ()
