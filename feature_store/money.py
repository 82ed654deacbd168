"""What events are worth: price times quantity, less what was returned; and the profit in it."""

from __future__ import annotations

from typing import NamedTuple

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from feature_store.catalogue import Catalogue
from feature_store.columns import COST, POSITION, PRICE, PROFIT, ROLE, VALUE
from feature_store.engine import Engine
from feature_store.schema import Schema
from feature_store.splits import Split

_MILLION = 1e6
_WHOLE = 9e15  # below, whole numbers and their sums are exact in 64 bits


def with_money(engine: Engine, split: Split, catalogue: Catalogue) -> ir.Table:
    """The split's events with `_price` and their net `_value`, both null where no price is known.

    An event is worth price x quantity, or its price in logs without quantities. A return takes
    its own price x quantity from what the user's purchases of that item are worth within the
    role (validation, test, ...) of the latest purchase before it; they are never worth less
    than nothing. Returns without an earlier purchase in the log take nothing.

    In a log with costs also `_cost`, of a piece, and `_profit`: what an event is worth less what
    its goods cost, both net, null where the cost is unknown. What returned goods cost is taken
    off like their price, and is the latest purchase's where the return does not say it. A cost
    may be above the price: then profit is below nothing.
    """
    schema = split.schema
    events = _known(engine, split.events, schema, catalogue)
    worth = {VALUE: _times(PRICE, events, schema)}
    if schema.cost is not None:
        worth[PROFIT] = _times(COST, events, schema)  # the cost of all pieces, until all is net
    events = events.mutate(**worth)
    if split.returns is not None:
        events = _less_returns(events, _known(engine, split.returns, schema, catalogue), schema)
    if schema.cost is None:
        return events
    return events.mutate(**{PROFIT: events[VALUE] - events[PROFIT]})


class LastKnown(NamedTuple):
    """The newest values [items], and when they were so, in microseconds since 1970; null where
    none is known."""

    values: pa.Array
    moments: pa.Array


def last_known(
    engine: Engine, events: ir.Table, schema: Schema, name: str, item: str, items: int
) -> LastKnown:
    """The newest `_price` or `_cost`, whichever `name` says, of every item row [items]; of those of
    one moment the last in the log.

    `events` come from `with_money`; `item` names their column of item rows.
    """
    known = events.filter(events[name].notnull())
    time, place = known[schema.time], known[POSITION]
    age = ibis.row_number().over(group_by=known[item], order_by=[time.desc(), place.desc()])
    aged = known.select(item, last=known[name], at=time, age=age)
    of_item = engine.collect(aged.filter(aged["age"] == 0).drop("age"))
    values, moments = np.full(items, np.nan), np.zeros(items, np.int64)
    rows = np.asarray(of_item[item])
    values[rows] = np.asarray(of_item["last"])
    moments[rows] = np.asarray(of_item["at"].cast(pa.timestamp("us")).cast(pa.int64()))
    missing = np.ones(items, dtype=bool)
    missing[rows] = False
    return LastKnown(pa.array(values, from_pandas=True), pa.array(moments, mask=missing))


def _less_returns(events: ir.Table, returns: ir.Table, schema: Schema) -> ir.Table:
    """Events whose money is net of the returns: `_value`, with costs what is in `_profit`, too."""
    keys = [schema.user, schema.item]
    money = {VALUE: PRICE} if schema.cost is None else {VALUE: PRICE, PROFIT: COST}
    # whole millionths are added, which makes the same sum in every order, on every engine
    lost = {
        f"_lost{name}": _millionths(-_times(piece, returns, schema))
        for name, piece in money.items()
    }
    pieces = {"_pieces": -_quantity(returns, schema)}
    returns = returns.select(
        *keys, _at=returns[schema.time], _return=returns[POSITION], **pieces, **lost
    )
    bought = events.filter(events[VALUE] > 0)
    bought = bought.select(*keys, schema.time, POSITION, ROLE, *set(money.values()) & {COST})
    pairs = returns.join(bought, keys)
    pairs = pairs.filter(pairs[schema.time] <= pairs["_at"])
    latest = ibis.row_number().over(
        group_by=pairs["_return"], order_by=[pairs[schema.time].desc(), pairs[POSITION].desc()]
    )
    pairs = pairs.mutate(_age=latest)
    pairs = pairs.filter(pairs["_age"] == 0)
    if schema.cost is not None:
        own = pairs[f"_lost{PROFIT}"]
        latest_cost = _millionths(pairs["_pieces"] * pairs[COST])
        pairs = pairs.mutate(**{f"_lost{PROFIT}": own.fill_null(latest_cost)})
    sums = {name: pairs[name].sum() for name in lost}
    totals = pairs.group_by(*keys, ROLE).aggregate(**sums)
    # all that is lost of a (user, item, role) is taken from its purchases in their order
    joined = events.left_join(totals, [*keys, ROLE], rname="_right_{name}")
    joined = joined.drop(f"_right_{k}" for k in (*keys, ROLE))
    before = ibis.window(
        group_by=[joined[k] for k in (*keys, ROLE)],
        order_by=[joined[schema.time], joined[POSITION]],
        preceding=(None, 1),
    )
    net = {}
    for name in money:
        taken = _millionths(joined[name]).sum().over(before).fill_null(0)
        left = (joined[f"_lost{name}"].fill_null(0) - taken) / _MILLION
        net[name] = joined[name] - ibis.greatest(0.0, ibis.least(left, joined[name]))
    return joined.mutate(**net).drop(*lost)


def _known(engine: Engine, events: ir.Table, schema: Schema, catalogue: Catalogue) -> ir.Table:
    """The events with `_price`, and `_cost` in a log that has costs: their own, or their item's
    from the catalogue."""
    assert schema.price is not None
    of_items = {}
    for role, name in ((schema.price, PRICE), (schema.cost, COST)):
        if role is not None and schema[role].side == "context":
            events = events.mutate(**{name: events[role].cast("float64")})
        elif role is not None:
            of_items[name] = role
    if not of_items:
        return events
    items = catalogue.read("item")
    columns = {"_money_item": items[schema.item]}
    columns |= {name: items[role] for name, role in of_items.items()}
    table = engine.table(pa.table(columns))
    joined = events.left_join(table, events[schema.item] == table["_money_item"])
    numbers = {name: joined[name].cast("float64") for name in of_items}
    return joined.drop("_money_item").mutate(**numbers)


def _times(piece: str, events: ir.Table, schema: Schema) -> ir.FloatingColumn:
    """The money of all pieces of an event, from that of one."""
    return events[piece] * _quantity(events, schema)


def _millionths(money: ir.FloatingColumn) -> ir.FloatingColumn:
    """Whole ones; larger numbers are whole already, and too large for an integer at some point."""
    millionths = money * _MILLION
    return (millionths.abs() < _WHOLE).ifelse(millionths.round().cast("float64"), millionths)


def _quantity(events: ir.Table, schema: Schema) -> ir.NumericColumn | int:
    return 1 if schema.quantity is None else events[schema.quantity].fill_null(0)
