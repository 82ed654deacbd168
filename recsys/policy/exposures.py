"""What was shown, clicked and bought, as rows of an event log.

n rows, B lists of at most k places. A row of event type `exposure` is an item at its place in a
list, with the probability of that; rows of `click` and `purchase` name the list that led to them.
The columns are those that `[data] source = "parquet"` takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.conform import conform
from feature_store.errors import DataError
from feature_store.schema import Schema
from recsys.policy.exploration import Propensities

EXPOSURE, CLICK, PURCHASE = "exposure", "click", "purchase"
EVENT_TYPES = (EXPOSURE, CLICK, PURCHASE)
_TIME = pa.timestamp("us")  # UTC


def exposure_schema(user: pa.DataType, item: pa.DataType) -> pa.Schema:
    """The columns of the log, where users' and items' ids are of these types.

    `propensity` is of the item at its place, `given_prefix` of it given the items before it.
    `arm` and `bundle` say who answered; money is `price` of a piece times `quantity`.
    """
    return pa.schema(
        [
            pa.field("user", user, nullable=False),
            pa.field("item", item, nullable=False),
            pa.field("event_type", pa.string(), nullable=False),
            pa.field("time", _TIME, nullable=False),
            pa.field("list_id", pa.string()),
            pa.field("place", pa.int64()),  # from 1
            pa.field("propensity", pa.float64()),
            pa.field("given_prefix", pa.float64()),
            pa.field("arm", pa.string()),
            pa.field("bundle", pa.string()),
            pa.field("price", pa.float64()),
            pa.field("quantity", pa.int64()),
        ]
    )


def exposure_schema_of(schema: Schema) -> pa.Schema:
    """The columns for the ids of a bundle's log."""
    return exposure_schema(schema[schema.user].arrow_type, schema[schema.item].arrow_type)


def exposures(
    columns: pa.Schema,
    *,
    users: pa.Array,
    items: pa.Array,
    places: np.ndarray,
    propensities: Propensities,
    times: pa.Array,
    lists: Any,
    arms: Any,
    bundles: Any,
    prices: np.ndarray | None = None,
) -> pa.Table:
    """Rows of what B lists showed, list after list.

    Args:
        columns: `exposure_schema`.
        users: raw ids [B]; a list for nobody in particular, null, makes no rows.
        items: raw ids of all candidates, in which `places` count.
        places, propensities: as `explored` gives them, [B, k].
        times: when each was shown [B], timestamps in UTC.
        lists, arms, bundles: its id, and who answered [B].
        prices: of all candidates, nan where unknown.
    """
    there = (places >= 0) & np.asarray(users.is_valid())[:, None]
    row, rank = np.nonzero(there)
    shown = places[row, rank]

    def of_lists(values: Any) -> pa.Array:
        array = values if isinstance(values, pa.Array) else pa.array(values)
        return array.take(pa.array(row))

    values = {
        "user": users.take(pa.array(row)),
        "item": items.take(pa.array(shown)),
        "event_type": pa.array([EXPOSURE] * len(row), pa.string()),
        "time": of_lists(times),
        "list_id": of_lists(lists),
        "place": pa.array(rank + 1),
        "propensity": propensities.at_place[row, rank],
        "given_prefix": propensities.given[row, rank],
        "arm": of_lists(arms),
        "bundle": of_lists(bundles),
    }
    if prices is not None:
        values["price"] = pa.array(prices[shown], from_pandas=True)
    absent = pa.nulls(len(row))
    return pa.table(
        [_cast(values.get(field.name, absent), field.type) for field in columns], columns
    )


def _cast(values: Any, kind: pa.DataType) -> pa.Array:
    return (values if isinstance(values, pa.Array) else pa.array(values)).cast(kind)


def rows_of(table: pa.Table | Mapping[str, Any], columns: pa.Schema) -> pa.Table:
    """Rows of the log: a table's columns in their types, those that it lacks without values.

    Raises:
        DataError: naming row and column of a value that does not fit, or a column nobody knows.
    """
    if not isinstance(table, pa.Table):
        table = pa.table(dict(table))
    if unknown := set(table.column_names) - set(columns.names):
        known = ", ".join(columns.names)
        raise DataError(f"unknown columns {', '.join(sorted(unknown))}; the log has: {known}")
    checked = conform(table, columns)
    if checked.problems:
        first = checked.problems[0]
        raise DataError(f"row {first.row}, column {first.column!r}: {first.value!r} {first.reason}")
    types = checked.table.column("event_type")
    known_type = pc.is_in(types, pa.array(EVENT_TYPES))
    if (row := pc.index(known_type, False).as_py()) >= 0:
        raise DataError(
            f"row {row}: the event type {types[row].as_py()!r} is none of: {', '.join(EVENT_TYPES)}"
        )
    return checked.table
