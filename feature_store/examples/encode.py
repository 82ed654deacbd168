"""Raw ids -> rows of vocabularies, moments -> seconds, catalogue -> one row an id."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from feature_store.catalogue import Catalogue
from feature_store.columns import (
    COST,
    ITEM_ROW,
    LABEL,
    LIST,
    POSITION,
    PRICE,
    PROFIT,
    ROLE,
    SECONDS,
    USER_ROW,
    VALUE,
    is_label,
    time_of,
)
from feature_store.engine import Engine
from feature_store.errors import ConfigError
from feature_store.money import with_money
from feature_store.schema import Feature, Schema
from feature_store.splits import Split
from feature_store.timeline import seconds
from feature_store.vocabulary import UNKNOWN, Vocabulary

if TYPE_CHECKING:
    import ibis.expr.types as ir

_INT32_ROWS = 1 << 31

_NESTED = 8  # joins in one expression: dozens cost minutes to plan, or more depth than Python has


def member_of(history: str) -> str:
    """The column that says whether an event is of the types that a history holds."""
    return f"_in_{history}"


def fit_vocabularies(
    engine: Engine, split: Split, catalogue: Catalogue, base: Mapping[str, Vocabulary]
) -> dict[str, Vocabulary]:
    """One vocabulary per embedding table, over the whole log and catalogue.

    Ids of later events are known (a catalogue knows its items before they sell), but nothing is
    learned about them: candidates and counts come from training events alone.
    """
    schema = split.schema
    columns: dict[str, list[pa.ChunkedArray]] = {}
    sides = {"user": catalogue.read("user"), "item": catalogue.read("item")}
    for feature in schema.features:
        if not feature.embedded:
            continue
        of_table = columns.setdefault(feature.table_name, [])
        if feature.side in sides:
            of_table.append(sides[feature.side].column(feature.name))
        if feature.side == "context" or feature.name in (schema.user, schema.item):
            distinct = engine.collect(split.events.select(feature.name).distinct())
            of_table.append(distinct.column(feature.name))
    return {
        table: Vocabulary.fit(*of_table, base=base.get(table))
        for table, of_table in columns.items()
    }


def encode_events(
    engine: Engine,
    split: Split,
    catalogue: Catalogue,
    vocabularies: Mapping[str, Vocabulary],
    histories: Mapping[str, tuple[str, ...]],
    positives: Collection[str] = (),
) -> ir.Table:
    """The events with rows in place of ids, seconds in place of times, and their money.

    `histories` and `positives` are those of `RowsOf`. Raises ConfigError where a history asks for
    event types and the log has none, or has the name of a feature.
    """
    schema, events = split.schema, split.events
    if schema.price is not None:
        events = with_money(engine, split, catalogue)
    types = {name: wanted for name, wanted in histories.items() if wanted}
    if types and schema.event_type is None:
        raise ConfigError(
            f"the list {next(iter(types))!r} holds events of certain types, and this log names no "
            "types: give its schema the event_type role"
        )
    features = {feature.name.casefold() for feature in schema.features}
    for name in histories:
        if features & {name.casefold(), time_of(name).casefold()}:
            raise ConfigError(f"the list {name!r} has the name of a feature: call it otherwise")
    members = {  # an event without a type or a label is of none of them
        member_of(name): events[schema.event_type].isin(wanted).fill_null(False)
        for name, wanted in types.items()
    }
    for name in positives if schema.label is not None else ():  # else every event is one
        positive = (events[schema.label] == 1).fill_null(False)
        members[member_of(name)] = positive & members.get(member_of(name), True)
    events = events.mutate(**members)
    ids = {f.name: f.name for f in schema.of_side("context") if f.kind == "id"}
    columns = {schema.user: USER_ROW, schema.item: ITEM_ROW, **ids}
    for place, (column, name) in enumerate(columns.items(), 1):
        values = vocabularies[schema[column].table_name].values
        # what is read over and over takes half the bytes; in memory rows are int64
        width = np.int32 if len(values) < _INT32_ROWS else np.int64
        rows = pa.array(np.arange(1, len(values) + 1, dtype=width))
        table = engine.table(pa.table({"_id": values, "_row": rows}))
        joined = events.left_join(table, events[column] == table["_id"])
        row = joined["_row"].fill_null(UNKNOWN)
        events = joined.mutate(**{name: row}).drop("_id", "_row")
        if place % _NESTED == 0:
            events = engine.cache(events)
    numbers = [f.name for f in schema.of_side("context") if f.kind == "dense"]
    label = {} if schema.label is None else {LABEL: events[schema.label].cast("float32")}
    tasks = [name for name in events.columns if is_label(name) and name != schema.label]
    label |= {name: _number(events[name]) for name in tasks}
    shown = {} if schema.list is None else {LIST: events[schema.list].cast("int64")}
    encoded = events.select(
        *(USER_ROW, ITEM_ROW, POSITION, ROLE, schema.time, *members, *ids),
        *([] if schema.price is None else [PRICE, VALUE]),
        *([] if schema.cost is None else [COST, PROFIT]),
        **{SECONDS: seconds(events[schema.time])},
        **{n: _number(events[n]) for n in numbers if n != schema.label},
        **label,
        **shown,
    )
    return engine.cache(encoded)


def _number(column: ir.Column) -> ir.Column:
    """NaN where it is unknown: there may be a 0 that is known."""
    return column.cast("float64").fill_null(math.nan).cast("float32")


def context_of(schema: Schema) -> tuple[str, ...]:
    """Names of the features of events, ids before numbers, without the label and the list."""
    own = (schema.label, schema.list)  # LABEL and LIST
    features = [f for f in schema.of_side("context") if f.name not in own]
    return tuple(f.name for kind in ("id", "dense") for f in features if f.kind == kind)


def encode_side(
    raw: pa.Table,
    schema: Schema,
    side: Literal["user", "item"],
    vocabularies: Mapping[str, Vocabulary],
) -> pa.Table:
    """Features of the rows of one side's ids, from `raw_side`; what is unknown is row 0, or NaN."""
    key = getattr(schema, side)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {key: pa.array(np.arange(raw.num_rows))}
    for feature in schema.of_side(side):
        if feature.name != key and feature.kind != "text":
            columns[feature.name] = _encode(feature, raw.column(feature.name), vocabularies)
    return pa.table(columns)


def raw_side(
    schema: Schema,
    side: Literal["user", "item"],
    catalogue: Catalogue,
    vocabularies: Mapping[str, Vocabulary],
) -> pa.Table:
    """What the catalogue says of each row of a side's ids, as it says it; null where it says
    nothing. The ids themselves are all there, but for row 0."""
    key = getattr(schema, side)
    vocabulary, raw = vocabularies[schema[key].table_name], catalogue.read(side)
    source = np.full(len(vocabulary), -1)
    source[vocabulary.encode(raw.column(key))] = np.arange(raw.num_rows)
    aligned = raw.take(pa.array(source, mask=source < 0))
    ids = vocabulary.decode(np.arange(len(vocabulary)))
    return aligned.set_column(aligned.column_names.index(key), key, ids)


def item_texts(raw_items: pa.Table, schema: Schema) -> pa.Table:
    """What can be read of every item row, from `raw_side`: texts, and other features as the
    catalogue has them, but for the id."""
    names = [f.name for f in schema.of_side("item") if f.name != schema.item]
    return raw_items.select(sorted(names, key=lambda name: schema[name].kind != "text"))


def _encode(
    feature: Feature, column: pa.ChunkedArray, vocabularies: Mapping[str, Vocabulary]
) -> pa.Array | pa.ChunkedArray:
    if not feature.embedded:
        return column.cast(pa.float32()).fill_null(math.nan)
    vocabulary = vocabularies[feature.table_name]
    if feature.kind == "id":
        return pa.array(vocabulary.encode(column))
    lists = column.combine_chunks()
    lists = lists.fill_null([]) if lists.null_count else lists
    return pa.ListArray.from_arrays(lists.offsets, pa.array(vocabulary.encode(lists.values)))
