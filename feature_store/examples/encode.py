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
    raw_of,
    time_of,
)
from feature_store.engine import Engine
from feature_store.errors import ConfigError
from feature_store.money import with_money
from feature_store.schema import Feature, Schema
from feature_store.splits import Split
from feature_store.timeline import seconds
from feature_store.vocabulary import UNKNOWN, Keys, Vocabulary

if TYPE_CHECKING:
    import ibis.expr.types as ir

_INT32_ROWS = 1 << 31

_NESTED = 8  # joins in one expression: dozens cost minutes to plan, or more depth than Python has


def member_of(history: str) -> str:
    """The column that says whether an event is of the types that a history holds."""
    return f"_in_{history}"


def fit_vocabularies(
    engine: Engine,
    split: Split,
    catalogue: Catalogue,
    base: Mapping[str, Vocabulary],
    keyed: Collection[str] = (),
) -> dict[str, Vocabulary]:
    """One vocabulary per embedding table, over the whole log and catalogue; none, but `Keys`, for
    the `keyed` tables.

    Ids of later events are known (a catalogue knows its items before they sell), but nothing is
    learned about them: candidates and counts come from training events alone.
    """
    schema = split.schema
    columns: dict[str, list[pa.ChunkedArray]] = {}
    kinds: dict[str, pa.DataType] = {}
    sides = {"user": catalogue.read("user"), "item": catalogue.read("item")}
    for feature in schema.features:
        if feature.embedded and feature.table_name in keyed:
            kinds[feature.table_name] = feature.arrow_type
        if not feature.embedded or feature.table_name in keyed:
            continue
        of_table = columns.setdefault(feature.table_name, [])
        if feature.side in sides:
            of_table.append(sides[feature.side].column(feature.name))
        if feature.side == "context" or feature.name in (schema.user, schema.item):
            distinct = engine.collect(split.events.select(feature.name).distinct())
            of_table.append(distinct.column(feature.name))
    known = {table: ids for table, ids in base.items() if not isinstance(ids, Keys)}
    fitted = {
        table: Vocabulary.fit(*of_table, base=known.get(table))
        for table, of_table in columns.items()
    }
    return {**fitted, **{table: Keys(kind, table) for table, kind in kinds.items()}}


def check_keyed(schema: Schema, keyed: Collection[str]) -> None:
    """Raises ConfigError naming a table that cannot be without a vocabulary."""
    option = "embeddings.tables.{}.vocabulary = 'none'"
    tables = {f.table_name for f in schema.features if f.embedded}
    for table in keyed:
        where = option.format(table)
        features = [f for f in schema.features if f.embedded and f.table_name == table]
        if not features:
            raise ConfigError(
                f"{where}: the log has no ids of that table; there are: {', '.join(sorted(tables))}"
            )
        for feature in features:
            why = None
            if feature.name == schema.item:
                why = "are ranked, counted and answered, item by item"
            elif feature.name == schema.list:
                why = "tell which rows belong together"
            elif feature.kind == "bag":
                why = "come in bags, of which unknown ones are left out"
            if why is not None:
                raise ConfigError(
                    f"{where}: the ids of {feature.name} {why}, which takes a row for each: set "
                    "vocabulary = 'log' there; ids of users and of events, and features of users "
                    "and items that are single ids, may be without"
                )
        if len({f.dtype for f in features}) > 1:
            raise ConfigError(f"{where}: its features are of several types, and their keys differ")


def keyed_strings(schema: Schema, vocabularies: Mapping[str, Vocabulary]) -> tuple[Feature, ...]:
    """Features of users and events whose codes nobody could turn back into raw ids."""
    return tuple(
        f
        for side in ("user", "context")
        for f in schema.of_side(side)  # type: ignore[arg-type]
        if f.kind == "id"
        and f.dtype == "string"
        and isinstance(vocabularies.get(f.table_name), Keys)
    )


def encode_events(
    engine: Engine,
    split: Split,
    catalogue: Catalogue,
    vocabularies: Mapping[str, Vocabulary],
    histories: Mapping[str, tuple[str, ...]],
    positives: Collection[str] = (),
) -> ir.Table:
    """The events with rows in place of ids, seconds in place of times, and their money; with codes,
    and for users and strings `raw_of` beside them, where ids have no vocabulary.

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
    raw = {f.name for f in keyed_strings(schema, vocabularies) if f.side == "context"}
    raw |= (
        {schema.user} if isinstance(vocabularies[schema[schema.user].table_name], Keys) else set()
    )
    events = events.mutate(**{raw_of(name): events[name] for name in raw})
    for place, (column, name) in enumerate(columns.items(), 1):
        known = vocabularies[schema[column].table_name]
        if isinstance(known, Keys):
            events = events.mutate(**{name: engine.codes(events[column])})
            continue
        values = known.values
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
        *map(raw_of, sorted(raw)),
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
    known = vocabularies[schema[key].table_name]
    own = known.encode(raw.column(key)) if isinstance(known, Keys) else np.arange(raw.num_rows)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {key: pa.array(own)}
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
    nothing. The ids themselves are all there, but for row 0; where they have no vocabulary, those
    that the catalogue has."""
    key = getattr(schema, side)
    vocabulary, raw = vocabularies[schema[key].table_name], catalogue.read(side)
    if isinstance(vocabulary, Keys):
        places = np.arange(-1, raw.num_rows)
        return raw.take(pa.array(places, mask=places < 0))
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
