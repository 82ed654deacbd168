"""A split log -> encoded Parquet examples: what the reader reads and nothing else.

A folder of examples holds
    examples.json            fingerprints and counts
    vocabulary/<table>.arrow raw ids of every embedding table
    items.parquet            row r: features and training events of item row r (0 = unknown)
    users.parquet            the same for users
    interactions.parquet     user row, item row, time of every training event, in time order
    train.parquet            one row a user (shape "sequences") or one row an event ("events",
                             with the history before it; "labelled", with its label)
    validation.parquet       one row a user: full history, targets, time of the request; of shape
                             "labelled" one row an event, as in training
    test.parquet             the same, with validation events in the history
                             targets are distinct; with prices, what each was worth
    serving.parquet          one row a user: all events as history, as raw ids, for the bundle
Ids are vocabulary rows; times are whole seconds since 1970.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend

from feature_store.catalogue import Catalogue
from feature_store.columns import (
    HISTORY,
    HISTORY_TIME,
    KNOWN_EVENTS,
    LABEL,
    LAST_PRICE,
    POSITION,
    ROLE,
    TARGET,
    TARGET_VALUE,
    TIME,
    TRAIN_EVENTS,
)
from feature_store.durable import write_parquet
from feature_store.money import VALUE, last_prices, with_money
from feature_store.protocols import LEARNT, SHOWN, TRAIN
from feature_store.schema import Feature, Schema
from feature_store.splits import Split
from feature_store.timeline import histories, order, seconds, sequences
from feature_store.vocabulary import Vocabulary

Shape = Literal["sequences", "events", "labelled"]

_ITEM_ROW, _USER_ROW, _SECONDS = "_item_row", "_user_row", "_seconds"
_ROW_GROUP_ROWS = {"sequences": 1024, "events": 1 << 16, "labelled": 1 << 16}


@dataclass(frozen=True)
class ExamplesSummary:
    """What a folder of examples holds."""

    protocol: str
    fingerprint: str
    parts: dict[str, Any]
    shape: Shape
    history_length: int
    train_roles: tuple[str, ...]
    events: dict[str, int]
    rows: dict[str, int]

    @classmethod
    def load(cls, folder: Path) -> ExamplesSummary:
        """Read `examples.json`."""
        return cls(**json.loads((folder / "examples.json").read_text()))


def write_examples(
    engine: Backend,
    split: Split,
    catalogue: Catalogue,
    folder: Path,
    *,
    shape: Shape = "sequences",
    history_length: int = 50,
    train_roles: tuple[str, ...] = (TRAIN,),
    since: datetime | None = None,
    base: dict[str, Vocabulary] | None = None,
) -> ExamplesSummary:
    """Write the examples of a split; the folder appears whole or not at all.

    `history_length` bounds the histories of shape "events"; other histories are whole, since
    they also say what a user has seen. With `train_roles = LEARNT` (to refit once the epochs are
    chosen) there is no validation file.

    To go on from an earlier training: with `since` only events from that moment (UTC) on are
    trained on, and earlier ones are history; `base` holds vocabularies whose ids keep their rows.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    (aside / "vocabulary").mkdir(parents=True)
    try:
        schema = split.schema
        vocabularies = _fit(split, catalogue, base or {})
        for table, vocabulary in vocabularies.items():
            vocabulary.save(aside / "vocabulary" / f"{table}.arrow")
        events = _encode_events(engine, split, catalogue, vocabularies)
        train = events.filter(events[ROLE].isin(train_roles))

        users = _encode_side(schema, "user", catalogue, vocabularies)
        items = _encode_side(schema, "item", catalogue, vocabularies)
        learnt = events.filter(events[ROLE].isin(LEARNT))
        for name, part in ((TRAIN_EVENTS, train), (KNOWN_EVENTS, learnt)):
            counts = part.group_by(_ITEM_ROW).aggregate(n=part.count()).to_pyarrow()
            seen = np.zeros(items.num_rows, dtype=np.int64)
            seen[np.asarray(counts[_ITEM_ROW])] = np.asarray(counts["n"])
            items = items.append_column(name, pa.array(seen))
        if schema.price is not None:
            items = items.append_column(
                LAST_PRICE, last_prices(learnt, schema, _ITEM_ROW, len(seen))
            )
        write_parquet(users, aside / "users.parquet")
        write_parquet(items, aside / "items.parquet")
        user_features = engine.create_table(f"users_{uuid.uuid4().hex}", users, temp=True)

        interactions = train.order_by(order(train, schema)).select(
            user=train[_USER_ROW], item=train[_ITEM_ROW], time=train[_SECONDS]
        )
        _write(interactions, aside / "interactions.parquet", 1 << 20)
        rows = {
            "train": _write(
                _join_users(
                    _train(train, schema, shape, history_length, since), user_features, schema
                ),
                aside / "train.parquet",
                _ROW_GROUP_ROWS[shape],
            )
        }
        for role in SHOWN:
            if role not in train_roles:
                if shape == "labelled":
                    asked = _labelled(events.filter(events[ROLE] == role), schema)
                else:
                    asked = _requests(events, schema, role)
                rows[role] = _write(
                    _join_users(asked, user_features, schema),
                    aside / f"{role}.parquet",
                    _ROW_GROUP_ROWS["labelled" if shape == "labelled" else "sequences"],
                )
        _write_serving(engine, split, catalogue, aside / "serving.parquet")
        summary = ExamplesSummary(
            protocol=split.protocol,
            fingerprint=split.fingerprint,
            parts=split.parts,
            shape=shape,
            history_length=history_length,
            train_roles=train_roles,
            events=split.counts,
            rows=rows,
        )
        (aside / "examples.json").write_text(json.dumps(asdict(summary), indent=2) + "\n")
        schema.save(aside / "schema.json")
        if folder.exists():
            shutil.rmtree(folder)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return summary


def _fit(split: Split, catalogue: Catalogue, base: dict[str, Vocabulary]) -> dict[str, Vocabulary]:
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
        found = columns.setdefault(feature.table_name, [])
        if feature.side in sides:
            found.append(sides[feature.side].column(feature.name))
        if feature.side == "context" or feature.name in (schema.user, schema.item):
            distinct = split.events.select(feature.name).distinct().to_pyarrow()
            found.append(distinct.column(feature.name))
    return {table: Vocabulary.fit(*found, base=base.get(table)) for table, found in columns.items()}


def _encode_events(
    engine: Backend, split: Split, catalogue: Catalogue, vocabularies: dict[str, Vocabulary]
) -> ir.Table:
    """The events with rows in place of ids, seconds in place of times, and their money."""
    schema, events = split.schema, split.events
    if schema.price is not None:
        events = with_money(engine, split, catalogue)
    encoded = {schema.user: _USER_ROW, schema.item: _ITEM_ROW}
    for feature in schema.of_side("context"):
        if feature.kind == "id":
            encoded[feature.name] = feature.name
    for column, name in encoded.items():
        values = vocabularies[schema[column].table_name].values
        mapping = pa.table({"_id": values, "_row": pa.array(range(1, len(values) + 1), pa.int64())})
        table = engine.create_table(f"rows_{uuid.uuid4().hex}", mapping, temp=True)
        joined = events.left_join(table, events[column] == table["_id"])
        joined = joined.mutate(**{name: ibis.coalesce(joined["_row"], 0)})
        events = joined.drop("_id", "_row")
    return events.mutate(**{_SECONDS: seconds(events[schema.time])}).cache()


def _encode_side(
    schema: Schema,
    side: Literal["user", "item"],
    catalogue: Catalogue,
    vocabularies: dict[str, Vocabulary],
) -> pa.Table:
    """Features of one side aligned to the rows of its ids; row 0 and unknown ids are empty."""
    key = getattr(schema, side)
    vocabulary = vocabularies[schema[key].table_name]
    raw = catalogue.read(side)
    source = np.full(len(vocabulary), -1)
    source[vocabulary.encode(raw.column(key))] = np.arange(raw.num_rows)
    take = pa.array(source, mask=source < 0)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {key: pa.array(np.arange(len(vocabulary)))}
    for feature in schema.of_side(side):
        if feature.name == key or feature.kind == "text":
            continue
        column = raw.column(feature.name).take(take)
        columns[feature.name] = _encode_column(feature, column, vocabularies)
    return pa.table(columns)


def _encode_column(
    feature: Feature, column: pa.ChunkedArray, vocabularies: dict[str, Vocabulary]
) -> pa.Array | pa.ChunkedArray:
    if not feature.embedded:
        return column.cast(pa.float32()).fill_null(0.0)
    vocabulary = vocabularies[feature.table_name]
    if feature.kind == "id":
        return pa.array(vocabulary.encode(column))
    lists = column.combine_chunks()
    lists = lists.fill_null([]) if lists.null_count else lists
    return pa.ListArray.from_arrays(lists.offsets, pa.array(vocabulary.encode(lists.values)))


def _train(
    train: ir.Table,
    schema: Schema,
    shape: Shape,
    history_length: int,
    since: datetime | None,
) -> ir.Table:
    if shape == "labelled":
        return _labelled(_from(train, since), schema)
    lists = {HISTORY: train[_ITEM_ROW], HISTORY_TIME: train[_SECONDS]}
    if shape == "sequences":
        if since is not None:
            # and the event before, from which the first of them can be learned
            window = ibis.window(group_by=train[_USER_ROW], order_by=order(train, schema))
            following = train[_SECONDS].lead().over(window)
            train = train.filter((train[_SECONDS] >= _stamp(since)) | (following >= _stamp(since)))
            lists = {HISTORY: train[_ITEM_ROW], HISTORY_TIME: train[_SECONDS]}
        found = sequences(train.mutate(**{schema.user: train[_USER_ROW]}), schema, lists)
        return found.filter(found[HISTORY].length() >= 2)
    found = _from(histories(train, schema, lists, history_length), since)
    columns = {
        schema.user: found[_USER_ROW],
        POSITION: found[POSITION],
        TARGET: found[_ITEM_ROW],
        TIME: found[_SECONDS],
        **_context(found, schema),
        HISTORY: found[HISTORY],
        HISTORY_TIME: found[HISTORY_TIME],
    }
    if schema.label:
        columns[LABEL] = found[schema.label].cast("float32")
    return found.select(**columns)


def _from(events: ir.Table, since: datetime | None) -> ir.Table:
    return events if since is None else events.filter(events[_SECONDS] >= _stamp(since))


def _stamp(moment: datetime) -> int:
    """Seconds since 1970; a moment without a time zone is UTC."""
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _labelled(events: ir.Table, schema: Schema) -> ir.Table:
    """One row an event: who, what, when, in which context, and its label."""
    assert schema.label is not None
    return events.select(
        **{
            schema.user: events[_USER_ROW],
            schema.item: events[_ITEM_ROW],
            POSITION: events[POSITION],
            TIME: events[_SECONDS],
            **_context(events, schema),
            LABEL: events[schema.label],
        }
    )


def _context(events: ir.Table, schema: Schema) -> dict[str, ir.Column]:
    """Features of the events themselves, without the label."""
    features = [f for f in schema.of_side("context") if f.name != schema.label]
    return {
        **{f.name: events[f.name] for f in features if f.kind == "id"},
        **{
            f.name: events[f.name].cast("float32").fill_null(0)
            for f in features
            if f.kind == "dense"
        },
    }


def _requests(events: ir.Table, schema: Schema, role: str) -> ir.Table:
    """One row a user: what was known before the role's first event, and what came after.

    An item that occurs again among the targets is one target, worth the sum.
    """
    events = events.mutate(**{schema.user: events[_USER_ROW]})
    asked = events.filter(events[ROLE] == role)
    pair = [asked[schema.user], asked[_ITEM_ROW]]
    worth = {VALUE: asked[VALUE].sum().over(group_by=pair)} if schema.price else {}
    again = ibis.row_number().over(group_by=pair, order_by=order(asked, schema))
    asked = asked.mutate(**worth, _again=again)
    asked = asked.filter(asked["_again"] == 0)
    columns = {TARGET: asked[_ITEM_ROW], "_target_time": asked[_SECONDS]}
    if schema.price:
        columns[TARGET_VALUE] = (asked[VALUE].fill_null(0) * 1e6).round().cast("int64")
    targets = sequences(asked, schema, columns)
    shown = events.filter(events[ROLE].isin(SHOWN[role]))
    lists = {HISTORY: shown[_ITEM_ROW], HISTORY_TIME: shown[_SECONDS]}
    history = sequences(shown, schema, lists).rename(_history_user=schema.user)
    joined = targets.left_join(history, targets[schema.user] == history["_history_user"])
    empty = {
        HISTORY: ibis.literal([], type="array<int64>"),
        HISTORY_TIME: ibis.literal([], type="array<int64>"),
    }
    return joined.select(
        schema.user,
        TARGET,
        *([TARGET_VALUE] if schema.price else []),
        **{TIME: joined["_target_time"][0]},
        **{name: ibis.coalesce(joined[name], none) for name, none in empty.items()},
    )


def _write_serving(engine: Backend, split: Split, catalogue: Catalogue, path: Path) -> None:
    """The newest history of every user, and the user's own features, all as raw values."""
    schema, events = split.schema, split.events
    lists = {HISTORY: events[schema.item], HISTORY_TIME: seconds(events[schema.time])}
    newest = sequences(events, schema, lists)
    users = engine.create_table(f"raw_users_{uuid.uuid4().hex}", catalogue.read("user"), temp=True)
    joined = newest.left_join(users, newest[schema.user] == users[schema.user])
    ordered = joined.order_by(newest[schema.user]).drop(f"{schema.user}_right")
    _write(ordered, path, _ROW_GROUP_ROWS["sequences"])


def _join_users(rows: ir.Table, users: ir.Table, schema: Schema) -> ir.Table:
    """Add the users' own features, and sort: by time and position, or one row a user by user."""
    joined = rows.left_join(users, rows[schema.user] == users[schema.user])
    if POSITION in rows.columns:
        joined = joined.order_by(TIME, POSITION).drop(POSITION)
    else:
        joined = joined.order_by(schema.user)
    return joined.drop(f"{schema.user}_right")


def _write(rows: ir.Table, path: Path, row_group_rows: int) -> int:
    """Stream an expression into one Parquet file; returns the number of rows."""
    batches = rows.to_pyarrow_batches(chunk_size=row_group_rows)
    with pq.ParquetWriter(path, batches.schema, compression="zstd") as writer:
        for table in _regroup(batches, row_group_rows):
            writer.write_table(table, row_group_size=row_group_rows)
    return pq.read_metadata(path).num_rows


def _regroup(batches: Iterable[pa.RecordBatch], rows: int) -> Iterable[pa.Table]:
    """Tables of exactly `rows` rows, but for the last: engines return batches of any size."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if count >= rows:
            table = pa.Table.from_batches(held)
            whole = count - count % rows
            yield table.slice(0, whole)
            held, count = table.slice(whole).to_batches(), count - whole
    if count:
        yield pa.Table.from_batches(held)
