"""Writes a folder of examples: events are sorted by the engine, and read in streams."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    is_raw,
    moment_of,
    raw_of,
)
from feature_store.durable import staged, write_parquet
from feature_store.engine import Engine
from feature_store.errors import ConfigError
from feature_store.examples.blocks import Block, blocks_of_users
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
from feature_store.examples.row_groups import RowGroups
from feature_store.examples.rows import event_rows, request_rows, sequence_rows, serving_rows
from feature_store.examples.spec import MADE_FROM, ExamplesSummary, RowsOf
from feature_store.examples.users import UserFeatures
from feature_store.labels import NegativesConfig
from feature_store.money import last_known
from feature_store.negatives import DrawnNegatives, Lists
from feature_store.protocols import LEARNT, SHOWN, TRAIN
from feature_store.schema import Schema
from feature_store.splits import Split
from feature_store.timeline import order, shuffle
from feature_store.vocabulary import Keys, Vocabulary, vocabulary_file

if TYPE_CHECKING:
    import ibis.expr.types as ir

_USERS_A_GROUP, _EVENTS_A_GROUP, _INTERACTIONS_A_GROUP = 1 << 10, 1 << 16, 1 << 20
_NUMBER = "_number"
_USERS_A_FILE, _EVENTS_A_FILE = 1 << 18, 1 << 22


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
        rows = _Rows(
            engine=engine,
            schema=schema,
            rows_of=rows_of,
            context=context_of(schema),
            users=features,
            raw_users=UserFeatures(raw_users, codes),
            named=tuple(f.name for f in keyed_strings(schema, vocabularies)),
            items=vocabularies[schema[schema.item].table_name],
            folder=aside,
            train_roles=train_roles,
            history_length=history_length,
            since=_stamp(since),
            lead=lead,
            negatives=_sampler(engine, events, schema, vocabularies, negatives),
            lists_of=lists_of,
            grows=split.grows,
            serving=_path(aside, "serving", grown),
            served=None if grown is None else of_users.encode(grown.users),
        ).write(events)
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


@dataclass(frozen=True)
class _Rows:
    """Writes the rows of every role, and those for serving, in one pass over sorted events.

    `users` holds the features of users, and `raw_users` their ids and what the catalogue says of
    them. `named` are features whose raw ids lie beside what is asked in validation and test: only
    there are their codes turned back. Of rows for `serving` only those of users that are `served`,
    by default all.
    """

    engine: Engine
    schema: Schema
    rows_of: RowsOf
    context: tuple[str, ...]
    users: UserFeatures
    raw_users: UserFeatures
    named: tuple[str, ...]
    items: Vocabulary
    folder: Path
    train_roles: tuple[str, ...]
    history_length: int
    since: int | None
    lead: int
    negatives: DrawnNegatives | None
    lists_of: ListsOf | None
    grows: bool
    serving: Path
    served: np.ndarray | None

    def write(self, events: ir.Table) -> dict[str, int]:
        """Write all files; returns the number of rows of each role."""
        roles = (TRAIN, *(role for role in SHOWN if role not in self.train_roles))
        # in the order of raw ids, which is that of rows where there are such
        own = raw_of(self.schema.user)
        user = USER_ROW if self.users.codes is None else own
        by_user = events.order_by(user, *order(events, self.schema)).drop(self.schema.time)
        with ExitStack() as stack:
            files = {role: stack.enter_context(self._file(role)) for role in roles}
            serving = stack.enter_context(RowGroups(self.serving, _USERS_A_GROUP))
            for block in blocks_of_users(self.engine.stream(by_user), user):
                for role, file in files.items():
                    rows = self._rows(block, role)
                    file.write(self._beside(rows, role))
                known = serving_rows(block, self.rows_of)
                raw = self._raw(known, block)
                if self.served is not None:
                    raw = raw.filter(pc.is_in(known[USER_ROW], pa.array(self.served)))
                serving.write(raw)
        for role in roles:
            if self._per_event(role):
                self._sort(role)
        return {role: file.rows for role, file in files.items()}

    def _per_event(self, role: str) -> bool:
        return self.rows_of.labels or (role == TRAIN and self.rows_of.per == "event")

    def _path(self, role: str) -> Path:
        return self.folder / f"{role}.parquet"

    def _by_user(self, role: str) -> Path:
        return self.folder / f"{role}.by_user.parquet"

    def _file(self, role: str) -> RowGroups:
        if self._per_event(role):
            return RowGroups(self._by_user(role), _EVENTS_A_GROUP)
        return RowGroups(self._path(role), _USERS_A_GROUP, _USERS_A_FILE)

    def _rows(self, block: Block, role: str) -> pa.Table:
        of_train = role == TRAIN
        since = self.since if of_train else None
        if self._per_event(role):
            own = (role,) if self.rows_of.labels and self.grows else ()
            return event_rows(
                block,
                self.schema,
                self.rows_of,
                self.context,
                asked=self.train_roles if of_train else (role,),
                shown=self.train_roles if of_train else (*SHOWN[role], *own),
                length=self.history_length,
                since=since,
                delay=self.rows_of.delay if of_train else 0,
                negatives=self.negatives,
                lists_of=self.lists_of,
            )
        if of_train:
            roles = self.train_roles
            return sequence_rows(block, self.schema, self.rows_of, roles, since, self.lead)
        return request_rows(block, self.schema, self.rows_of, role)

    def _beside(self, rows: pa.Table, role: str) -> pa.Table:
        """Rows of a role with the features of their users."""
        users = rows[self.schema.user]
        named = {} if role == TRAIN else {raw_of(name): name for name in self.named}
        unasked = [n for n in rows.column_names if is_raw(n) and n not in named]
        rows = _beside(rows.drop_columns(unasked), self.users.of(users))
        there = set(rows.column_names)
        if lacking := {n: of for n, of in named.items() if n not in there and of in there}:
            raw = self.raw_users.of(users)
            rows = _beside(rows, pa.table({n: raw[of] for n, of in lacking.items()}))
        return rows

    def _raw(self, rows: pa.Table, block: Block) -> pa.Table:
        """Rows for serving with raw ids in place of rows of vocabularies."""
        for name in self.rows_of.requested:
            lists = rows[name].combine_chunks()
            ids = self.items.decode(lists.values.to_numpy())
            place = rows.column_names.index(name)
            rows = rows.set_column(place, name, pa.ListArray.from_arrays(lists.offsets, ids))
        users = self.raw_users.of(rows[USER_ROW])
        ids = users[self.schema.user]
        if self.users.codes is not None:
            ids = block.rows.column(raw_of(self.schema.user)).take(pa.array(block.starts[:-1]))
        rows = rows.set_column(0, self.schema.user, ids)
        return _beside(rows, users.drop_columns([self.schema.user]))

    def _sort(self, role: str) -> None:
        """Put rows of events, which came by user, into the order of time; targets of training into
        none, so that those of each row group are drawn from all of them."""
        rows = self.engine.scan([self._by_user(role)])
        within = [DRAW] if self.negatives is not None else []
        mixed = role == TRAIN and not self.rows_of.labels
        first = shuffle(rows[POSITION]) if mixed else rows[TIME]
        rows = rows.order_by(first, POSITION, *within).drop(POSITION, *within)
        _copy(self.engine, rows, self._path(role), _EVENTS_A_GROUP, _EVENTS_A_FILE)
        self._by_user(role).unlink()


def _write_interactions(engine: Engine, events: ir.Table, schema: Schema, path: Path) -> None:
    """Pairs of user and item, and when, in the order of time."""
    numbered, code = _numbered(events, schema)
    interactions = numbered.order_by(order(numbered, schema)).select(
        user=numbered[_NUMBER], item=numbered[ITEM_ROW], time=numbered[SECONDS], **code
    )
    _copy(engine, interactions, path, _INTERACTIONS_A_GROUP)


def _numbered(events: ir.Table, schema: Schema) -> tuple[ir.Table, dict[str, str]]:
    """Events with numbers of their users from 1: their rows, or places in the order of raw ids;
    then what to keep of them besides is the `code`, too."""
    import ibis

    raw = raw_of(schema.user)
    if raw not in events.columns:
        return events.mutate(**{_NUMBER: events[USER_ROW]}), {}
    place = ibis.dense_rank().over(order_by=events[raw])
    return events.mutate(**{_NUMBER: 1 + place}), {"code": USER_ROW}


def _beside(rows: pa.Table, more: pa.Table) -> pa.Table:
    for name in more.column_names:
        rows = rows.append_column(more.schema.field(name), more[name])
    return rows


def _copy(
    engine: Engine, rows: ir.Table, path: Path, row_group_rows: int, file_rows: int | None = None
) -> None:
    """Stream an expression into Parquet."""
    with RowGroups(path, row_group_rows, file_rows) as file:
        for batch in engine.stream(rows, row_group_rows):
            file.write(pa.Table.from_batches([batch]))
