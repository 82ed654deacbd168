"""What a log can hold and hardly mean: said when it is ingested, and never mended by guessing."""

from __future__ import annotations

import math

from feature_store.engine import Engine
from feature_store.event_log import EventLog

_STEEP = 0.5  # discounts for many pieces bend prices less
_FEWEST = 10  # events, besides one an item, below which nothing is said


def doubtful_price(engine: Engine, log: EventLog) -> str | None:
    """A sentence where the price of an item moves with the quantity, as the total of a line does
    and the price of one piece does not; None where it does not, or cannot be seen.

    Within each item the logarithm of the price is regressed on that of the quantity: the slope of
    line totals is 1, that of prices of one piece about 0. It is steep where two standard errors
    are left between it and one half.
    """
    schema = log.schema
    if schema.price is None or schema.quantity is None or schema[schema.price].side != "context":
        return None
    events = engine.scan(log.files)
    events = events.filter((events[schema.price] > 0) & (events[schema.quantity] > 0))
    logs = events.select(
        item=events[schema.item],
        x=events[schema.quantity].cast("float64").ln(),
        y=events[schema.price].cast("float64").ln(),
    )
    items = logs.group_by("item").aggregate(
        n=logs.count(),
        xx=logs["x"].var(how="pop"),
        yy=logs["y"].var(how="pop"),
        xy=logs["x"].cov(logs["y"], how="pop"),
    )
    items = items.filter(items["xx"] > 0)
    sums = items.aggregate(
        items=items.count(),
        n=items["n"].sum(),
        **{name: (items["n"] * items[name]).sum() for name in ("xx", "xy", "yy")},
    )
    (total,) = engine.collect(sums).to_pylist()
    free = (total["n"] or 0) - total["items"] - 1
    if free < _FEWEST:
        return None
    slope = total["xy"] / total["xx"]
    error = math.sqrt(max(0.0, total["yy"] - slope * total["xy"]) / free / total["xx"])
    if abs(slope) - 2 * error <= _STEEP:
        return None
    moves, guess = ("grows", "the total of a line") if slope > 0 else ("falls", "divided by it")
    return (
        f"the price of an item ({schema.price}) {moves} with the quantity ({schema.quantity}): "
        f"twice as many pieces have {2**slope:.2f} times the price, over {total['n']:,} events. "
        f"Is it {guess}? The price is that of one piece, and money is price times quantity"
    )
