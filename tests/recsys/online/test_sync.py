"""A log that is synced to a store: the histories are those that training and evaluation saw."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from feature_store.catalogue import Catalogue
from feature_store.columns import HISTORY, TIME, time_of
from feature_store.compaction import compact
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, files_of, write_examples
from feature_store.ingest import ingest
from feature_store.labels import LabelConfig
from feature_store.parquet import read_parquet
from feature_store.protocols import GlobalTime, LeaveOneOut
from feature_store.sources.synthetic import Synthetic
from feature_store.splits import make_split
from feature_store.vocabulary import Vocabulary
from recsys.online import sync as syncing
from recsys.online.rules import Rules, make_rules
from recsys.online.store import UserStore
from recsys.online.sync import sync

Open = Callable[..., UserStore]
Written = Callable[[GlobalTime | LeaveOneOut, RowsOf], dict[str, pa.Table]]
LISTS = {"clicks": ("click", "purchase"), "bought": ("purchase",), "liked": ()}
COLUMNS = [name for h in (HISTORY, *LISTS) for name in (h, time_of(h))]
ENGINE = EngineConfig(threads=1)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    """A synthetic log with returns, in which some events are there twice, and some moments are
    shared."""
    folder = tmp_path_factory.mktemp("log")
    ingest(Synthetic(users=40, items=25, clusters=3, events=8, seed=2), folder / "whole")
    whole = EventLog.open(folder / "whole")
    events = pa.concat_tables(read_parquet(path) for path in whole.files).sort_by("position")
    names = whole.schema.events_schema().names
    order = pc.sort_indices(events, [("time", "ascending"), ("position", "ascending")])
    events = events.take(order).select(names)
    minutes = pc.floor_temporal(events["time"], unit="hour")  # of a coarse clock
    coarse = events.set_column(names.index("time"), "time", minutes)
    log = EventLog.create(folder / "log", whole.schema)
    third = events.num_rows // 3
    for part in (coarse.slice(0, third), events.slice(third, third), events.slice(2 * third)):
        log.append(pa.concat_tables([part, part.slice(0, 40)]))
    users = Catalogue(folder / "whole", whole.schema).read("user")
    Catalogue(log.folder, log.schema).write("user", users)
    return log


def rules_of(log: EventLog, rows: RowsOf, **values: object) -> Rules:
    return make_rules(log=log.schema, histories=rows.requested, positives=rows.positives, **values)


def examples(
    log: EventLog, folder: Path, protocol: GlobalTime | LeaveOneOut, rows: RowsOf
) -> dict[str, pa.Table]:
    """Rows of serving, training and test, with raw ids."""
    with Engine(ENGINE) as engine:
        labels = LabelConfig() if rows.labels else None
        split = make_split(engine, log, protocol, labels)
        catalogue = Catalogue(log.folder, log.schema)
        write_examples(engine, split, catalogue, folder, rows_of=rows, history_length=7)
    ids = {n: Vocabulary.load(folder / "vocabulary" / f"{n}.arrow") for n in ("user_id", "item_id")}
    tables = {"serving": read_parquet(folder / "serving.parquet")}
    for role in ("train", "test"):
        table = pa.concat_tables(map(read_parquet, files_of(folder, role)))
        users = ids["user_id"].decode(table["user_id"].to_numpy())
        table = table.set_column(table.column_names.index("user_id"), "user_id", users)
        for name in set(rows.requested) & set(table.column_names):
            lists = table[name].combine_chunks()
            items = ids["item_id"].decode(pc.list_flatten(lists).to_numpy())
            offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(lists).to_numpy())])
            lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)
            table = table.set_column(table.column_names.index(name), name, lists)
        tables[role] = table
    return tables


@pytest.fixture(scope="module")
def written(log: EventLog, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Writes the examples of a protocol, once for stores of all kinds."""
    known: dict[str, dict[str, pa.Table]] = {}

    def written(protocol: GlobalTime | LeaveOneOut, rows: RowsOf) -> dict[str, pa.Table]:
        key = repr((protocol, rows))
        if key not in known:
            known[key] = examples(log, tmp_path_factory.mktemp("written") / "e", protocol, rows)
        return known[key]

    return written


TYPED = ("click", "purchase", "impression")
SPLIT = {"event_types": TYPED, "min_label": 0.0}


def test_all_of_a_log_is_what_the_bundle_would_hold(
    log: EventLog, opened: Open, written: Written, tmp_path: Path
) -> None:
    """Row for row: lists by event type and by label, times, ties, equal events, features; and the
    same again when the log grows, however often it is synced."""
    rows = RowsOf(per="event", histories=LISTS, labels=True, positives=("liked",))
    store = opened(rules_of(log, rows, **SPLIT))
    growing = EventLog.create(tmp_path / "growing", log.schema)
    users = Catalogue(log.folder, log.schema).read("user")
    Catalogue(growing.folder, log.schema).write("user", users)
    names, total = log.schema.events_schema().names, 0
    for number, path in enumerate(log.files):
        growing.append(read_parquet(path).sort_by("position").select(names))
        done = sync(growing, store, engine=ENGINE)
        assert done.read == read_parquet(path).num_rows
        assert done.features == (0 if number else users.num_rows)
        total += done.added
    expected = written(LeaveOneOut(**SPLIT), rows)["serving"]
    assert total == pc.sum(pc.list_value_length(expected[HISTORY])).as_py()
    assert expected.num_rows == 40
    for name in LISTS:  # each list holds some events, and not all
        assert 0 < pc.sum(pc.list_value_length(expected[name])).as_py() < total
    found = store.of(expected["user_id"].combine_chunks())
    assert found.column_names == expected.column_names
    for name in found.column_names:
        assert found[name].to_pylist() == expected[name].to_pylist(), name
        assert found.schema.field(name).type == expected.schema.field(name).type
    assert store.users().to_pylist() == sorted(expected["user_id"].to_pylist())
    again = sync(growing, store, engine=ENGINE)
    assert (again.read, again.added, again.features) == (0, 0, 0)
    again = sync(growing, store, engine=ENGINE, anew=True)
    assert again.read == growing.num_rows and again.added == 0
    assert store.of(expected["user_id"].combine_chunks()).equals(found)


@pytest.mark.parametrize("days", [2.0, 8.0, 14.0])
def test_before_the_test_histories_are_those_that_evaluation_sees(
    days: float, log: EventLog, opened: Open, written: Written
) -> None:
    """At several moments: of a store that knows no more than there was, and of one that knows what
    came later, asked for the moment."""
    rows = RowsOf(histories={HISTORY: (), **{n: LISTS[n] for n in ("clicks", "bought")}})
    store = opened(rules_of(log, rows))
    protocol = GlobalTime(test_days=days, validation_days=3.0)
    expected = written(protocol, rows)["test"]
    users, moment = expected["user_id"], min(expected[TIME].to_pylist())
    columns = [name for h in rows.requested for name in (h, time_of(h))]
    assert expected.num_rows > 3 and max(map(len, expected["bought"].to_pylist())) > 0
    events = pa.concat_tables(map(read_parquet, log.files)).sort_by("position")
    earlier = pc.less(events["time"], pa.scalar(moment, pa.int64()).cast(pa.timestamp("s")))
    store.append(events.filter(earlier).select(log.schema.events_schema().names))
    then = store.of(users, columns)
    assert then.num_rows == expected.num_rows
    sync(log, store, engine=ENGINE)
    later = store.of(users, columns, before=moment)
    for name in columns:
        known = [values or [] for values in then[name].to_pylist()]  # None: nobody yet
        assert known == expected[name].to_pylist(), name
        assert later[name].to_pylist() == expected[name].to_pylist(), name


@pytest.mark.parametrize("delay", [0, 3600, 86_400])
def test_delayed_histories_are_those_that_rankers_learn_from(
    delay: int, log: EventLog, opened: Open, written: Written
) -> None:
    """Lists of a labelled row end before its second, or with what is so many seconds older: a store
    that hears of events with a delay is asked like that."""
    rows = RowsOf(per="event", histories=LISTS, labels=True, positives=("liked",), delay=delay)
    store = opened(rules_of(log, rows))
    sync(log, store, engine=ENGINE)
    protocol = GlobalTime(test_days=3.0, validation_days=6.0)
    expected = written(protocol, rows)["train"]
    names = [c for c in COLUMNS if c in expected.column_names]
    assert set(LISTS) < set(names) and expected.num_rows > 100
    for row in expected.slice(0, 120).to_pylist():
        before = row[TIME] - delay + (delay > 0)
        seen = store.of(pa.array([row["user_id"]]), names, before=before).to_pylist()[0]
        assert {n: v[-7:] for n, v in seen.items()} == {n: row[n] for n in names}


def test_a_sync_that_was_stopped_goes_on_where_it_was(
    log: EventLog, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch by batch, whatever stops it between two of them."""
    rows = RowsOf()
    store = opened(rules_of(log, rows))
    monkeypatch.setattr(syncing, "BATCH_ROWS", 100)
    told: list[int] = []

    def stop(rows: int, _: int) -> None:
        told.append(rows)
        if len(told) % 2 == 0:
            raise KeyboardInterrupt

    read = 0
    for _ in range(100):
        try:
            read = sync(log, store, engine=ENGINE, progress=stop).read
            break
        except KeyboardInterrupt:
            continue
    assert told == sorted(set(told)) and told[-1] == log.num_rows and read <= 100
    assert sync(log, store, engine=ENGINE, anew=True).added == 0


def test_an_event_that_came_by_itself_is_the_one_in_the_log(
    log: EventLog, opened: Open, tmp_path: Path
) -> None:
    """It is not added twice, and of events of one moment the log says which was first."""
    schema = log.schema
    shared = read_parquet(log.files[0]).sort_by("position").slice(0, 60)
    shared = shared.select(schema.events_schema().names)
    user = shared["user_id"][0].as_py()
    of_user = shared.filter(pc.equal(shared["user_id"], user))
    store = opened(rules_of(log, RowsOf()))
    backwards = of_user.take(pa.array(np.arange(of_user.num_rows)[::-1]))
    alone = store.append(backwards)
    own = EventLog.create(tmp_path / "own", schema)
    own.append(shared)
    assert sync(own, store, engine=ENGINE).added + alone == shared.num_rows
    expected = of_user.sort_by([("time", "ascending")])["item_id"].to_pylist()
    assert store.of(pa.array([user]), [HISTORY])[HISTORY].to_pylist() == [expected]


def test_a_log_that_was_written_anew_is_read_from_its_beginning(
    log: EventLog, opened: Open, tmp_path: Path
) -> None:
    store = opened(rules_of(log, RowsOf()))
    tables = [read_parquet(path).select(log.schema.events_schema().names) for path in log.files]
    for number, last in enumerate((tables[1], tables[2])):
        one = EventLog.create(tmp_path / str(number), log.schema)
        one.append(tables[0])
        one.append(last)
        done = sync(one, store, engine=ENGINE)
        assert done.read == one.num_rows


def test_files_that_were_joined_are_not_read_again(
    log: EventLog, opened: Open, tmp_path: Path
) -> None:
    store = opened(rules_of(log, RowsOf()))
    tables = [read_parquet(path).select(log.schema.events_schema().names) for path in log.files]
    growing = EventLog.create(tmp_path / "growing", log.schema)
    for table in tables[:-1]:
        growing.append(table)
    sync(growing, store, engine=ENGINE)
    assert compact(growing).after == 1
    assert sync(growing, store, engine=ENGINE).read == 0
    growing.append(tables[-1])
    assert sync(growing, store, engine=ENGINE).read == tables[-1].num_rows


def test_a_log_without_the_stores_columns_is_refused(opened: Open, log: EventLog) -> None:
    features = [f for f in log.schema.features if f.name not in ("event_type", "clicked")]
    roles = log.schema.model_dump(exclude={"features", "event_type", "label"})
    plain = log.schema.model_validate({**roles, "features": features})
    store = opened(rules_of(log, RowsOf(histories={HISTORY: ("click",)})))
    other = EventLog(log.folder, plain)
    with pytest.raises(DataError, match="has no column 'event_type', which is string in"):
        sync(other, store)
    with pytest.raises(DataError, match="holds no events"):
        sync(EventLog(Path("nowhere"), plain), store)
