"""Writes a folder of examples: events are sorted by the engine, and rows made where they lie."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from feature_store.catalogue import Catalogue
from feature_store.columns import (
    COST,
    DRAW,
    ITEM_ROW,
    KNOWN_EVENTS,
    LAST_COST,
    LAST_PRICE,
    POSITION,
    PRICE,
    ROLE,
    SECONDS,
    TIME,
    TRAIN_EVENTS,
    USER_ROW,
    moment_of,
    raw_of,
)
from feature_store.durable import staged, write_parquet
from feature_store.engine import Engine
from feature_store.errors import ConfigError
from feature_store.examples.encode import (
    check_keyed,
    context_of,
    encode_events,
    encode_side,
    fit_vocabularies,
    item_texts,
    keyed_strings,
    raw_side,
)
from feature_store.examples.grown import Grown, told_of_users
from feature_store.examples.listed import PREFIX, ListsOf
from feature_store.examples.parts import SERVING, Copying, RowsOfParts, Written, join
from feature_store.examples.spec import MADE_FROM, ExamplesSummary, RowsOf
from feature_store.examples.users import UserFeatures
from feature_store.labels import NegativesConfig
from feature_store.money import last_known
from feature_store.negatives import DrawnNegatives, Lists
from feature_store.protocols import LEARNT, TRAIN
from feature_store.schema import Schema
from feature_store.splits import Split
from feature_store.timeline import order, shuffle
from feature_store.vocabulary import Keys, Vocabulary, vocabulary_file

if TYPE_CHECKING:
    import ibis.expr.types as ir

_EVENTS_A_GROUP, _EVENTS_A_FILE, _INTERACTIONS_A_GROUP = 1 << 16, 1 << 22, 1 << 20
_NUMBER = "_number"
_PARTS = ".parts"  # what parts of the events became, before it is joined


def write_examples(
    engine: Engine,
    split: Split,
    catalogue: Catalogue,
    folder: Path,
    *,
    rows_of: RowsOf | None = None,
    history_length: int = 50,
    train_roles: tuple[str, ...] = (TRAIN,),
    since: datetime | None = None,
    lead: int = 1,
    base: Mapping[str, Vocabulary] | None = None,
    made_from: Mapping[str, Any] | None = None,
    negatives: NegativesConfig | None = None,
    lists: Lists | None = None,
    grown: Grown | None = None,
    keyed: Collection[str] = (),
) -> ExamplesSummary:
    """Write the examples of a split; the folder appears whole or not at all.

    Memory is bounded by the engine's, the ids and the catalogue, and the longest user; of rows of
    events, by that user's events times `history_length`.

    `rows_of` says what a row is, by default a user's sequence. `history_length` bounds the lists
    of rows of events; other lists are whole, since they also say what a user has seen. With
    `train_roles = LEARNT` (to refit once the epochs are chosen) there is no validation file.

    To go on from an earlier training: with `since` only events from that moment (UTC) on are
    trained on, and earlier ones are history, with the last `lead` of which a sequence begins;
    `base` holds vocabularies whose ids keep their rows.
    `negatives` puts rows of drawn items beside the positives of labelled rows, and `lists` finds
    what they are drawn from where they ask for lists.
    With `grown` they are made of examples that there were before a log has grown, and `split` is
    that of whoever came since.
    Tables that are `keyed` have no vocabulary: 64-bit keys of their ids stand in the rows.
    `made_from` (JSON) appears together with the examples, and says whether they are still right.

    Raises:
        DataError: memory or disk do not suffice.
        ConfigError: a `keyed` table needs a vocabulary; `rows_of` asks for event types that the log
            does not tell apart, or compares what is no number of events, or in a log without lists.
    """
    rows_of = rows_of or RowsOf()
    schema = split.schema
    _check_compared(rows_of, schema)
    check_keyed(schema, keyed)
    with staged(folder) as aside:
        (aside / "vocabulary").mkdir()
        vocabularies = fit_vocabularies(engine, split, catalogue, base or {}, keyed)
        for table, vocabulary in vocabularies.items():
            vocabulary.save(aside / "vocabulary" / vocabulary_file(table))
        asked = {} if lists is None else {PREFIX + n: of for n, of in lists.histories.items()}
        held, positives = {**rows_of.requested, **asked}, rows_of.positives
        events = encode_events(engine, split, catalogue, vocabularies, held, positives)
        train = events.filter(events[ROLE].isin(train_roles))
        raw_users = raw_side(schema, "user", catalogue, vocabularies)
        users = encode_side(raw_users, schema, "user", vocabularies)
        write_parquet(users, aside / "users.parquet")
        raw_items = raw_side(schema, "item", catalogue, vocabularies)
        items = encode_side(raw_items, schema, "item", vocabularies)
        if grown is None:
            items = _with_counts(engine, items, events, train, schema)
        else:
            items = grown.with_counts(engine, items, events, train_roles)
        write_parquet(items, aside / "items.parquet")
        if rows_of.texts:
            write_parquet(item_texts(raw_items, schema), aside / "item_texts.parquet")
        own = train if grown is None else grown.newly(events, train_roles)
        _write_interactions(engine, own, schema, _path(aside, "interactions", grown))
        of_users = vocabularies[schema[schema.user].table_name]
        codes = users[schema.user].to_numpy() if isinstance(of_users, Keys) else None
        features = UserFeatures(users.drop_columns([schema.user]), codes)
        lists_of = None
        if lists is not None:
            known = np.flatnonzero(np.asarray(items[KNOWN_EVENTS]))
            find = lists.open(schema, vocabularies, known[known > 0])
            lists_of = ListsOf(find, asked, schema, features)
        maker = RowsOfParts(
            schema=schema,
            rows_of=rows_of,
            context=context_of(schema),
            users=features,
            raw_users=UserFeatures(raw_users, codes),
            named=tuple(f.name for f in keyed_strings(schema, vocabularies)),
            items=vocabularies[schema[schema.item].table_name],
            folder=aside / _PARTS,
            train_roles=train_roles,
            history_length=history_length,
            since=_stamp(since),
            lead=lead,
            negatives=_sampler(engine, events, schema, vocabularies, negatives),
            lists_of=lists_of,
            grows=split.grows,
            served=None if grown is None else of_users.encode(grown.users),
        )
        rows = _write_rows(engine, maker, events, aside, _path(aside, "serving", grown))
        summary = ExamplesSummary(
            protocol=split.protocol,
            fingerprint=split.fingerprint,
            parts=split.parts,
            rows_of=rows_of,
            history_length=history_length,
            train_roles=train_roles,
            events=split.counts,
            rows=rows,
            log_rows=split.log_rows,
            read=split.read,
            told_of_users=told_of_users(catalogue),
        )
        summary.save(aside)
        schema.save(aside / "schema.json")
        (aside / MADE_FROM).write_text(json.dumps(made_from or {}, indent=2) + "\n")
    return summary


def _path(folder: Path, name: str, grown: Grown | None) -> Path:
    """Where the rows of a table are written that takes a file a day."""
    return folder / f"{name}.parquet" if grown is None else grown.carry(name, folder)


def _check_compared(rows_of: RowsOf, schema: Schema) -> None:
    if not rows_of.compared:
        return
    if schema.list is None:
        raise ConfigError(
            f"{rows_of.compared[0]!r} is compared with those of its list, and the log has no "
            "lists: leave it out, or name their column as the role 'list'"
        )
    numbers = [f.name for f in schema.of_side("context") if f.kind == "dense"]
    if unknown := [name for name in rows_of.compared if name not in numbers]:
        raise ConfigError(
            f"compared are numbers of events, and {', '.join(unknown)} is none; the log has: "
            f"{', '.join(numbers)}"
        )


def _stamp(moment: datetime | None) -> int | None:
    """Seconds since 1970; a moment without a time zone is UTC."""
    if moment is None:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _sampler(
    engine: Engine,
    events: ir.Table,
    schema: Schema,
    vocabularies: Mapping[str, Vocabulary],
    config: NegativesConfig | None,
) -> DrawnNegatives | None:
    """What draws negatives: counts are of training alone, whatever a phase trains on, so that rows
    of validation and test stay the same."""
    if config is None:
        return None
    train = (events[ROLE] == TRAIN).sum()
    items = events.group_by(ITEM_ROW).aggregate(first=events[SECONDS].min(), n=train)
    facts = engine.collect(items)
    users, keys = (vocabularies[schema[name].table_name] for name in (schema.user, schema.item))
    return DrawnNegatives(
        config,
        user_keys=None if isinstance(users, Keys) else users.keys,
        item_keys=keys.keys,
        items=np.asarray(facts[ITEM_ROW]),
        first=np.asarray(facts["first"]) if schema.clock == "time" else None,
        events=np.asarray(facts["n"]),
    )


def _with_counts(
    engine: Engine, items: pa.Table, events: ir.Table, train: ir.Table, schema: Schema
) -> pa.Table:
    """Item rows with their counts of events and the last known prices and costs."""
    learnt = events.filter(events[ROLE].isin(LEARNT))
    for name, part in ((TRAIN_EVENTS, train), (KNOWN_EVENTS, learnt)):
        counts = engine.collect(part.group_by(ITEM_ROW).aggregate(n=part.count()))
        of_item = np.zeros(items.num_rows, dtype=np.int64)
        of_item[np.asarray(counts[ITEM_ROW])] = np.asarray(counts["n"])
        items = items.append_column(name, pa.array(of_item))
    for role, name, last in ((schema.price, PRICE, LAST_PRICE), (schema.cost, COST, LAST_COST)):
        if role is not None:
            known = last_known(engine, learnt, schema, name, ITEM_ROW, items.num_rows)
            items = items.append_column(last, known.values)
            items = items.append_column(moment_of(last), known.moments)
    return items


def _write_rows(
    engine: Engine, maker: RowsOfParts, events: ir.Table, folder: Path, serving: Path
) -> dict[str, int]:
    """Write the rows of every role, and those for serving, where the events are; returns the number
    of rows of each role."""
    maker.folder.mkdir()
    # in the order of raw ids, which is that of rows where there are such
    user = events[maker.user]
    parts = engine.parts(
        events,
        [user, *order(events, maker.schema)],
        maker,
        together=True,
        drop=[maker.schema.time],
        here=maker.lists_of is not None,  # a finished retriever does not travel
    )
    written = {name: [Written(*part[name]) for part in parts] for name in (*maker.roles, SERVING)}
    join(written[SERVING], serving)
    for role in maker.roles:
        made, path = written[role], folder / f"{role}.parquet"
        if maker.per_event(role):
            _sort(engine, maker, role, made, path)
        else:
            join(made, path)
    shutil.rmtree(maker.folder)
    return {role: sum(part.rows for part in written[role]) for role in maker.roles}


def _sort(
    engine: Engine, maker: RowsOfParts, role: str, parts: Sequence[Written], path: Path
) -> None:
    """Put rows of events, which came by user, into the order of time; targets of training into
    none, so that those of each row group are drawn from all of them."""
    rows = engine.scan([Path(part.path) for part in parts])
    within = [DRAW] if maker.negatives is not None else []
    mixed = role == TRAIN and not maker.rows_of.labels
    first = shuffle(rows[POSITION]) if mixed else rows[TIME]
    keys = [POSITION, *within]
    _write_sorted(
        engine, rows, [first, *(rows[key] for key in keys)], keys, path, _EVENTS_A_GROUP,
        _EVENTS_A_FILE,
    )  # fmt: skip
    for part in parts:
        Path(part.path).unlink()


def _write_interactions(engine: Engine, events: ir.Table, schema: Schema, path: Path) -> None:
    """Pairs of user and item, and when, in the order of time."""
    numbered, code = _numbered(events, schema)
    keys = {f"_key{place}": key for place, key in enumerate(order(numbered, schema))}
    interactions = numbered.select(
        user=numbered[_NUMBER], item=numbered[ITEM_ROW], time=numbered[SECONDS], **code, **keys
    )
    by_time = [interactions[key] for key in keys]
    _write_sorted(engine, interactions, by_time, list(keys), path, _INTERACTIONS_A_GROUP)


def _numbered(events: ir.Table, schema: Schema) -> tuple[ir.Table, dict[str, str]]:
    """Events with numbers of their users from 1: their rows, or places in the order of raw ids;
    then what to keep of them besides is the `code`, too."""
    import ibis

    raw = raw_of(schema.user)
    if raw not in events.columns:
        return events.mutate(**{_NUMBER: events[USER_ROW]}), {}
    place = ibis.dense_rank().over(order_by=events[raw])
    return events.mutate(**{_NUMBER: 1 + place}), {"code": USER_ROW}


def _write_sorted(
    engine: Engine,
    rows: ir.Table,
    by: Sequence[ir.Column],
    drop: Sequence[str],
    path: Path,
    row_group_rows: int,
    file_rows: int | None = None,
) -> None:
    """Write an expression into Parquet in an order, without some of its columns."""
    folder = path.with_name(f"{_PARTS}-{path.name}")
    folder.mkdir()
    parts = engine.parts(rows, by, Copying(folder, row_group_rows, file_rows), drop=drop)
    join([Written(*part) for part in parts], path)
    shutil.rmtree(folder)
