"""Stores of users: all kinds answer as the bundle's file of the same events does."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_kinds import KINDS, Place

from feature_store.errors import DataError
from feature_store.schema import Dtype, Feature, Schema
from recsys.online.places import open_store
from recsys.online.rules import Rules, make_rules
from recsys.online.sqlite import SqliteStore
from recsys.online.store import UserStore
from recsys.serving.users import KnownUsers, UsersFile

START = datetime(2024, 5, 1)
SECOND = int(START.replace(tzinfo=UTC).timestamp()) + 1
Open = Callable[..., UserStore]


def schema_of(dtype: Dtype = "int64", **roles: Any) -> Schema:
    return Schema(
        user="u",
        item="i",
        event_type="kind",
        quantity="pieces",
        label="stars",
        **roles,
        features=(
            Feature(name="u", kind="id", side="user", dtype=dtype),
            Feature(name="country", kind="id", side="user"),
            Feature(name="tags", kind="bag", side="user"),
            Feature(name="age", kind="dense", side="user", dtype="float32"),
            Feature(name="i", kind="id", side="item", dtype=dtype),
            Feature(name="kind", kind="id", side="context"),
            Feature(name="pieces", kind="dense", side="context", dtype="int64"),
            Feature(name="stars", kind="dense", side="context", dtype="float32"),
        ),
    )


class Event(NamedTuple):
    u: Any
    i: Any
    micros: int
    kind: str | None = "click"
    pieces: int | None = None
    stars: float | None = None


LISTS = {"history": (), "bought": ("buy",), "liked": ()}


def rules_of(dtype: Dtype = "int64", **values: Any) -> Rules:
    defaults = {"log": schema_of(dtype), "histories": LISTS, "positives": ("liked",)}
    return make_rules(**{**defaults, "positive_from": 4.0, **values})


def table_of(events: list[Event], dtype: Dtype = "int64") -> pa.Table:
    columns = {name: [getattr(event, name) for event in events] for name in Event._fields}
    micros = columns.pop("micros")
    times = [START + timedelta(microseconds=each) for each in micros]
    wanted = schema_of(dtype).events_schema()
    return pa.table({**columns, "time": times}).select(wanted.names).cast(wanted)


# -- what the file of a bundle would hold, in plain Python -----------------------------------------


def expected(appends: list[list[Event]], keep: int = 1000) -> dict[Any, dict[str, list[Any]]]:
    """By user, the lists; events in the order of time, then of arrival."""
    distinct: dict[tuple[Any, ...], tuple[int, int, Event]] = {}
    for events in appends:
        within: dict[tuple[Any, ...], int] = {}
        for event in events:
            same = event[:4]
            key = (*same, within.get(same, 0))
            within[same] = within.get(same, 0) + 1
            if (event.pieces or 0) >= 0:
                distinct.setdefault(key, (event.micros, len(distinct), event))
    rows: dict[Any, dict[str, list[Any]]] = {}
    for micros, _, event in sorted(distinct.values(), key=lambda each: each[:2]):
        row = rows.setdefault(event.u, {n: [] for h in LISTS for n in (h, f"{h}_time")})
        inside = {
            "history": True,
            "bought": event.kind == "buy",
            "liked": event.stars is not None and event.stars >= 4,
        }
        second = SECOND - 1 + micros // 1_000_000
        for name in (name for name in LISTS if inside[name]):
            row[name].append(event.i)
            row[f"{name}_time"].append(second)
    return {user: {n: values[-keep:] for n, values in row.items()} for user, row in rows.items()}


def write_file(path: Path, rows: dict[Any, dict[str, list[Any]]], schema: pa.Schema) -> UsersFile:
    columns = {n: [row.get(n) for row in rows.values()] for n in schema.names if n != "u"}
    table = pa.table({"u": list(rows), **columns}, schema)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table)
    return UsersFile(path, "u")


def assert_alike(
    store: KnownUsers, other: KnownUsers, users: list[Any], whole: bool = True
) -> None:
    """The same answers, also of an earlier moment, unless a store is too small for that."""
    kind = store.schema.field("u").type
    assert store.schema == other.schema and store.column_names == other.column_names
    assert sorted(store.users().to_pylist()) == sorted(other.users().to_pylist())
    asked = pa.array(users, kind)
    assert store.of(asked).equals(other.of(asked).cast(store.schema))
    if whole:
        rows, others = (known.of(asked, before=SECOND) for known in (store, other))
        assert rows.equals(others.cast(store.schema))
    some = ["bought", "u"]
    assert store.of(asked, some).equals(other.of(asked, some))


def events_of(ids: st.SearchStrategy[Any]) -> st.SearchStrategy[Event]:
    return st.builds(
        Event,
        u=ids,
        i=ids,
        # few moments, so that most logs hold ties; microseconds that share a second
        micros=st.sampled_from([-1, 0, 1, 999_999, 1_000_000, 5_000_000]),
        kind=st.sampled_from(["click", "buy", None]),
        pieces=st.sampled_from([None, 1, -1]),
        stars=st.sampled_from([None, 1.0, 4.0, 5.0]),
    )


KEEPS = (1, 2, 3, 1000)
NUMBERS = st.sampled_from([7, -3, (1 << 63) - 1, -(1 << 63)])
TEXTS = st.sampled_from(["7", "007", "ü:%", "a\x00b", "x" * 300])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["int64", "string"])
def test_any_appends_answer_as_the_file_of_their_events(
    kind: str, dtype: Dtype, place: Place, tmp_path: Path
) -> None:
    """Repeated, late, tied and returned events, cut into appends anyhow, each of which may come
    again; of a user more than is kept."""
    ids = NUMBERS if dtype == "int64" else TEXTS
    event = events_of(ids)
    known = [7, -3, 1, (1 << 63) - 1] if dtype == "int64" else ["7", "ü:%", "nobody", "a\x00b"]
    path = tmp_path / "users.arrow"
    stores = {keep: open_store(place(kind), rules_of(dtype, keep=keep)) for keep in KEEPS}

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.lists(event, max_size=8), max_size=4), st.sampled_from(KEEPS))
    def check(appends: list[list[Event]], keep: int) -> None:
        store = stores[keep]
        empty(store)
        added = [store.append(table_of(events, dtype)) for events in appends]
        rows = expected(appends, keep)
        file, whole = write_file(path, rows, store.schema), keep == max(KEEPS)
        assert_alike(store, file, [*known, known[0], None], whole)
        if whole:
            assert sum(added) == sum(len(row["history"]) for row in rows.values())
        again = [store.append(table_of(events, dtype)) for events in reversed(appends)]
        assert again == [0] * len(appends)
        assert_alike(store, file, known, whole)

    check()
    for store in stores.values():
        store.close()


def empty(store: UserStore) -> None:
    if isinstance(store, SqliteStore):
        store._forget_before(1 << 62)
    else:
        store._client.flushdb()  # type: ignore[attr-defined]


def test_what_is_asked_and_given_may_be_of_any_type_of_id(opened: Open) -> None:
    store = opened(rules_of())
    beyond = 1 << 53  # where doubles stand for their neighbours as well
    table = pa.table(
        {
            "u": pa.array([Decimal(beyond + 1), Decimal(7)], pa.decimal128(20, 0)),
            "i": [str(beyond + 1), "8"],
            "time": ["2024-05-01T00:00:00.000001Z", "2024-05-01"],
            "kind": ["click", "buy"],
            "stars": [None, 5],
        }
    )
    assert store.append(table) == 2
    for users in (
        pa.array([beyond + 1, beyond, 7]),
        pa.array([str(beyond + 1), str(beyond), "7"]),
        pa.array([Decimal(beyond + 1), Decimal(beyond), Decimal(7)]),
        pa.array([beyond + 1, beyond, 7], pa.uint64()),
    ):
        assert store.of(users, ["u", "history", "liked"]).to_pydict() == {
            "u": [beyond + 1, None, 7],
            "history": [[beyond + 1], None, [8]],
            "liked": [[], None, [8]],
        }
    assert store.of(pa.array([1 << 63], pa.uint64()), ["u"]).to_pydict() == {"u": [None]}
    with pytest.raises(DataError, match="users must be of type int64: 'someone'"):
        store.of(pa.array(["someone"]))


def test_features_lie_beside_the_histories_of_known_users(opened: Open) -> None:
    store = opened(rules_of())
    features = pa.table(
        {
            "u": [7, 8],
            "country": ["NL", None],
            "tags": [["a", "b"], []],
            "age": pa.array([0.1, None], pa.float32()),
        }
    )
    store.put_features(features)
    assert store.of(pa.array([7]))["u"].to_pylist() == [None]  # until there is an event
    store.append(table_of([Event(7, 1, 0), Event(9, 1, 0), Event(8, 1, 0)]))
    rows = store.of(pa.array([9, 7, 8]), ["country", "tags", "age", "history"])
    assert (
        rows.slice(1, 1)
        .drop_columns("history")
        .equals(features.slice(0, 1).drop_columns("u").cast(rows.schema.remove(3)))
    )
    assert rows["country"].to_pylist() == [None, "NL", None]
    assert rows["tags"].to_pylist() == [None, ["a", "b"], []]
    store.put_features(features.slice(0, 1).set_column(1, "country", pa.array(["FR"])))
    assert store.of(pa.array([7, 8]), ["country"])["country"].to_pylist() == ["FR", None]


def test_a_user_can_be_forgotten(opened: Open) -> None:
    store = opened(rules_of())
    store.put_features(pa.table({"u": [7, 8], "country": ["NL", "FR"]}))
    events = table_of([Event(7, 1, 0), Event(8, 2, 0), Event(9, 3, 0)])
    store.append(events)
    assert store.forget(pa.array(["7", "9", "10", "7"])) == 2
    assert store.users().to_pylist() == [8]
    assert store.append(events) == 2
    rows = store.of(pa.array([7, 8]), ["history", "country"]).to_pydict()
    assert rows == {"history": [[1], [2]], "country": [None, "FR"]}
    assert store.forget(pa.array([], pa.int64())) == 0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"u": None}, "events need a column 'u'; they have: i, time"),
        ({"kind": None}, "events need a column 'kind'"),
        ({"time": ["2024-05-01", "soon"]}, "row 1, column 'time': 'soon' is not a time"),
        ({"i": [1, None]}, "row 1, column 'i': '' is null"),
        ({"u": ["7", "007"]}, "row 1, column 'u': '007' is a text of other digits"),
    ],
)
def test_events_that_do_not_fit_are_named_and_nothing_is_added(
    change: dict[str, Any], text: str, opened: Open
) -> None:
    store = opened(rules_of())
    columns = {"u": [7, 7], "i": [1, 2], "time": ["2024-05-01", "2024-05-02"]}
    columns |= {"kind": ["click", "buy"], "stars": [1, 2]}
    columns = {n: values for n, values in {**columns, **change}.items() if values is not None}
    with pytest.raises(DataError, match=text.replace("(", r"\(")):
        store.append(pa.table(columns))
    assert len(store.users()) == 0


def test_events_are_told_apart_by_the_unique_columns_of_the_log(opened: Open) -> None:
    """A rating that comes again later, or with other stars, is the same; without such columns, an
    event that is there twice in one append is two events, and one that is sent again is one."""
    store = opened(rules_of(log=schema_of(unique=("u", "i"))))
    assert store.append(table_of([Event(7, 1, 0), Event(7, 1, 5), Event(7, 2, 5)])) == 2
    assert store.append(table_of([Event(7, 1, 9, "buy", 1, 5.0)])) == 0
    assert store.of(pa.array([7]), ["history"])["history"].to_pylist() == [[1, 2]]


def test_events_of_types_and_labels_that_a_split_leaves_out_are_not_taken(opened: Open) -> None:
    store = opened(
        rules_of(event_types=("click", "buy"), min_label=2.0, leave_out=(3.0,), histories=LISTS)
    )
    events = [
        Event(7, 1, 0, "view", None, 5.0),
        Event(7, 2, 1, None, None, 5.0),
        Event(7, 3, 2, "click", None, 1.0),
        Event(7, 4, 3, "click", None, None),
        Event(7, 5, 4, "click", None, 3.0),
        Event(7, 6, 5, "buy", 0, 2.0),
        Event(7, 7, 6, "buy", -1, 4.0),
        Event(7, 8, 7, "click", None, 4.0),
    ]
    assert store.append(table_of(events)) == 2
    rows = store.of(pa.array([7])).to_pylist()[0]
    assert (rows["history"], rows["bought"], rows["liked"]) == ([6, 8], [6], [8])


def test_a_rare_list_keeps_its_events_behind_many_of_another(opened: Open) -> None:
    store = opened(rules_of(keep=3))
    store.append(table_of([Event(7, 1, 0, "buy"), *(Event(7, n, n) for n in range(2, 20))]))
    row = store.of(pa.array([7])).to_pylist()[0]
    assert (row["history"], row["bought"]) == ([17, 18, 19], [1])
    assert store.append(table_of([Event(7, 16, 16), Event(7, 99, 16)])) == 0  # three are newer
    assert store.append(table_of([Event(7, 98, 17), Event(7, 98, 17)])) == 2  # two are


class Clock:
    """Says the time that it is told; Redis' own cannot be told, so that it begins now."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now

    @property
    def micros(self) -> int:
        return int(self.now - SECOND + 1) * 1_000_000


def test_old_events_are_forgotten_and_do_not_come_back(opened: Open) -> None:
    store, clock = opened(rules_of(days=1.0)), Clock()
    store._clock = clock
    hour, now, users = 3_600_000_000, clock.micros, pa.array([7, 8])
    events = table_of([Event(7, 1, now), Event(7, 2, now + 20 * hour), Event(8, 3, now)])
    assert store.append(events) == 3
    clock.now += 25 * 3600
    assert store.of(users, ["u", "history"]).to_pydict() == {
        "u": [7, None],
        "history": [[2], None],
    }
    assert store.append(events) == 0
    assert store.append(table_of([Event(8, 4, now + hour - 1)])) == 0
    assert store.append(table_of([Event(8, 5, now + hour)])) == 1  # as old as may be
    clock.now += 365 * 86400
    assert store.of(users, ["u"]).to_pydict() == {"u": [None, None]}
    store.sweep()
    if isinstance(store, SqliteStore):
        assert not store._connection.execute("SELECT * FROM users").fetchall()
    else:  # the server does it, some time
        lives = store._client.pttl(store._key("user", 7)) / 3_600_000  # type: ignore[attr-defined]
        assert 43.9 < lives < 44.1  # hours: a day after the newest


def test_limits_can_change_and_rules_cannot(opened: Open) -> None:
    store = opened(rules_of(keep=2))
    events = table_of([Event(7, n, n) for n in range(5)])
    store.append(events)
    assert store.limit() is False and store.limit(keep=2) is False
    assert store.limit(keep=4) is True  # what was forgotten comes only if it comes again
    assert opened().rules.keep == 4
    assert store.append(events) == 2
    assert store.of(pa.array([7]), ["history"])["history"].to_pylist() == [[1, 2, 3, 4]]
    assert store.limit(keep=1) is False
    assert store.of(pa.array([7]), ["history"])["history"].to_pylist() == [[4]]
    assert opened(rules_of(keep=99)).rules.keep == 1
    with pytest.raises(DataError, match=r"by other rules \(histories, positives\)"):
        opened(rules_of(histories={"history": ()}, positives=()))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"log": schema_of(clock="none")}, "this log has no times"),
        ({"log": schema_of(clock="order"), "days": 3.0}, "only the order of events"),
        ({"keep": 0}, "keep: Input should be greater than or equal to 1"),
        ({"histories": {f"h{n}": () for n in range(33)}}, "from 1 to 32 lists"),
    ],
)
def test_rules_that_make_no_store_are_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text):
        rules_of(**values)


# -- several at once -------------------------------------------------------------------------------


def test_threads_that_append_the_same_events_add_each_once(opened: Open) -> None:
    """Each in its own order; users' histories come out the same."""
    store = opened(rules_of())
    events = [Event(u, i, 10 * i + u) for i in range(10) for u in range(3)]
    added: list[int] = []

    def work(step: int) -> None:
        order = [events[step * n % len(events)] for n in range(len(events))]
        added.extend(store.append(table_of([event])) for event in order)

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(added) == len(events) and len(added) == 3 * len(events)
    rows = store.of(pa.array([0, 1, 2]), ["history"])["history"].to_pylist()
    assert rows == [list(range(10))] * 3


@pytest.fixture
def appending(url: str) -> Iterator[subprocess.Popen[str]]:
    """Another process, which appends events of user 7 to the store one by one."""
    program = (
        "import sys, pyarrow as pa\n"
        "from recsys.online.places import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "for n in range(10**6):\n"
        "    row = {'u': [7], 'i': [n], 'time': [n], 'kind': ['click'], 'stars': [None]}\n"
        "    print(store.append(pa.table(row)), flush=True)\n"
    )
    words = [sys.executable, "-c", program, url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_killed_process_leaves_what_it_was_told_to_have_added(
    opened: Open, url: str, request: pytest.FixtureRequest
) -> None:
    """And nothing half: the same appends again add the rest, each event once."""
    store = opened(rules_of(keep=100_000))
    process = request.getfixturevalue("appending")
    told = [process.stdout.readline() for _ in range(20)]
    process.kill()
    told += process.stdout.readlines()
    there = store.of(pa.array([7]), ["history"])["history"][0].as_py()
    assert set(told) == {"1\n"} and len(told) <= len(there) <= len(told) + 1
    events = [Event(7, n, 0)._replace(micros=0) for n in range(len(there) + 5)]
    table = table_of(events).set_column(2, "time", pa.array(range(len(events))))
    assert store.append(table) == 5
    assert store.of(pa.array([7]), ["history"])["history"][0].as_py() == list(range(len(events)))


# -- where they are --------------------------------------------------------------------------------


def test_a_bundles_users_are_the_kind_that_takes_no_events(tmp_path: Path) -> None:
    rows = expected([[Event(7, 1, 0)]])
    file = write_file(tmp_path / "users.arrow", rows, rules_of().row)
    assert_alike(file, file, [7, 8])
    with pytest.raises(DataError, match="read only"):
        file.append(table_of([Event(7, 2, 1)]))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sqlite:///nowhere/users.db", "nowhere/users.db is not there: make it by `recsys online"),
        ("sqlite://users.db", "sqlite://users.db names no file"),
        ("postgres://x/y", "postgres://x/y is no store of users: write sqlite:///users.db"),
        ("users.db", "users.db is no store of users"),
        ("redis://joe:secret@localhost:1/0?password=secret", r"redis://localhost:1/0 does not"),
        ("unix:///no/such?prefix=a", "unix:///no/such.prefix=a does not answer"),
    ],
)
def test_what_is_no_store_is_refused_without_telling_secrets(url: str, text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        open_store(url)
    assert "secret" not in str(caught.value) and "joe" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "users.db").write_bytes(b"something else" * 100)
    for rules in (None, rules_of()):
        with pytest.raises(DataError, match=r"users\.db cannot be read or written: file is not"):
            open_store(f"sqlite:///{tmp_path}/users.db", rules)
    (tmp_path / "empty.db").touch()
    with pytest.raises(DataError, match=r"empty\.db"):
        open_store(f"sqlite:///{tmp_path}/empty.db")


def test_a_record_that_was_altered_is_named(opened: Open, place: Place) -> None:
    store = open_store(place("sqlite"), rules_of("string"))
    store.append(table_of([Event("a", "b", 0), Event("c", "d", 0)], "string"))
    connection = store._connection  # type: ignore[attr-defined]
    (record,) = connection.execute("SELECT record FROM users WHERE id = 'a'").fetchone()
    for altered in (b"", record[:-1], b"x" + record[1:], record[:-1] + b"\xff"):
        connection.execute("UPDATE users SET record = ? WHERE id = 'a'", (altered,))
        with pytest.raises(DataError, match="what is kept of a user cannot be read"):
            store.of(pa.array(["a"]))
        with pytest.raises(DataError, match="what is kept of a user cannot be read"):
            store.append(table_of([Event("a", "b", 0)], "string"))
    assert store.of(pa.array(["c"]), ["history"])["history"].to_pylist() == [["d"]]
    store.close()
