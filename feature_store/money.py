"""What events are worth: price times quantity, less what was returned."""

from __future__ import annotations

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa

from feature_store.catalogue import Catalogue
from feature_store.columns import POSITION, PRICE, ROLE, VALUE
from feature_store.engine import Engine
from feature_store.schema import Schema
from feature_store.splits import Split


def with_money(engine: Engine, split: Split, catalogue: Catalogue) -> ir.Table:
    """The split's events with `_price` and their net `_value`, both null where no price is known.

    An event is worth price x quantity, or its price in logs without quantities. A return takes
    its own price x quantity from what the user's purchases of that item are worth within the
    role (validation, test, ...) of the latest purchase before it; they are never worth less
    than nothing. Returns without an earlier purchase in the log take nothing.
    """
    schema = split.schema
    events = _priced(engine, split.events, schema, catalogue)
    events = events.mutate(**{VALUE: _worth(events, schema)})
    if split.returns is None:
        return events
    keys = [schema.user, schema.item]
    returns = _priced(engine, split.returns, schema, catalogue)
    returns = returns.select(
        *keys, _at=returns[schema.time], _return=returns[POSITION], _lost=-_worth(returns, schema)
    )
    bought = events.filter(events[VALUE] > 0).select(*keys, schema.time, POSITION, ROLE)
    pairs = returns.join(bought, keys)
    pairs = pairs.filter(pairs[schema.time] <= pairs["_at"])
    latest = ibis.row_number().over(
        group_by=pairs["_return"], order_by=[pairs[schema.time].desc(), pairs[POSITION].desc()]
    )
    pairs = pairs.mutate(_age=latest)
    pairs = pairs.filter(pairs["_age"] == 0)
    lost = pairs.group_by(*keys, ROLE).aggregate(_lost=pairs["_lost"].sum())
    # all that is lost of a (user, item, role) is taken from its purchases in their order
    joined = events.left_join(lost, [*keys, ROLE], rname="_right_{name}")
    joined = joined.drop(f"_right_{k}" for k in (*keys, ROLE))
    before = ibis.window(
        group_by=[joined[k] for k in (*keys, ROLE)],
        order_by=[joined[schema.time], joined[POSITION]],
        preceding=(None, 1),
    )
    left = joined["_lost"].fill_null(0) - joined[VALUE].sum().over(before).fill_null(0)
    taken = ibis.greatest(0.0, ibis.least(left, joined[VALUE]))
    return joined.mutate(**{VALUE: joined[VALUE] - taken}).drop("_lost")


def last_prices(
    engine: Engine, events: ir.Table, schema: Schema, item: str, items: int
) -> pa.Array:
    """The newest price of every item row [items], null where none is known.

    `events` come from `with_money`; `item` names their column of item rows.
    """
    priced = events.filter(events[PRICE].notnull())
    newest = priced.group_by(item).aggregate(price=priced[PRICE].argmax(priced[schema.time]))
    of_item = engine.collect(newest)
    prices = np.full(items, np.nan)
    prices[np.asarray(of_item[item])] = np.asarray(of_item["price"])
    return pa.array(prices, from_pandas=True)


def _priced(engine: Engine, events: ir.Table, schema: Schema, catalogue: Catalogue) -> ir.Table:
    """The events with `_price`: their own, or their item's from the catalogue."""
    assert schema.price is not None
    if schema[schema.price].side == "context":
        return events.mutate(**{PRICE: events[schema.price].cast("float64")})
    items = catalogue.read("item").select([schema.item, schema.price])
    prices = items.rename_columns(["_priced_item", PRICE])
    table = engine.table(prices)
    joined = events.left_join(table, events[schema.item] == table["_priced_item"])
    return joined.drop("_priced_item").mutate(**{PRICE: joined[PRICE].cast("float64")})


def _worth(events: ir.Table, schema: Schema) -> ir.FloatingColumn:
    quantity = 1 if schema.quantity is None else events[schema.quantity].fill_null(0)
    return events[PRICE] * quantity
