"""Examples of a log that has grown by a day: those of the whole log, at the cost of the day."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store.by_user import ByUser
from feature_store.catalogue import Catalogue
from feature_store.compaction import compact
from feature_store.engine import Engine, EngineConfig
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples import (
    ExamplesSummary,
    RowsOf,
    grow,
    held_before,
    parts_of,
    write_examples,
)
from feature_store.protocols import LEARNT, TRAIN, GlobalTime
from feature_store.sources import Synthetic
from feature_store.splits import make_split
from feature_store.vocabulary import Vocabulary

START, LATE = datetime(2024, 1, 1), 0.3
SOURCE = Synthetic(users=120, items=200, clusters=4, events=8, days=12, return_rate=0.3)


def days_of(source: Synthetic) -> list[pa.Table]:
    """The events of each day as they come, some of them a day or two late; prices change."""
    events = pa.concat_tables([chunk.table for chunk in source.read_events()])
    random = np.random.default_rng(0)
    place, prices = events.column_names.index("price"), random.random(events.num_rows).round(2)
    events = events.set_column(place, "price", pa.array(prices))
    day = pc.days_between(pa.scalar(START), events["time"]).to_numpy()
    late = random.random(len(day)) < LATE
    comes = np.minimum(day + late * random.integers(1, 3, len(day)), source.days - 1)
    return [events.filter(pa.array(comes == d)) for d in range(source.days)]


class Shop:
    """A log to which days are added, and examples of it."""

    def __init__(self, folder: Path, engine: Engine | None = None) -> None:
        self.folder, self.schema = folder, SOURCE.schema
        self.log = EventLog.create(folder / "store", SOURCE.schema)
        self.catalogue = Catalogue(folder / "store", SOURCE.schema)
        self.catalogue.write("item", next(iter(SOURCE.read_items())).table)
        self.users = next(iter(SOURCE.read_users())).table
        self.days = days_of(SOURCE)
        self.engine = engine or Engine(EngineConfig(threads=1))

    def take_in(self, first: int, last: int) -> None:
        """Add days; the catalogue tells of more users, too."""
        for day in range(first, last + 1):
            self.log.append(self.days[day])
        self.catalogue.write("user", self.users.slice(0, 60 + 5 * last))

    def write(self, name: str, day: int, old: str | None, **options: Any) -> Path:
        """The examples with a day as the test: of the whole log, or grown from others."""
        test = START + timedelta(days=day)
        protocol = GlobalTime(
            validation_start=test - timedelta(days=1),
            test_start=test,
            event_types=("click", "purchase"),
        )
        roles = options.pop("roles", (TRAIN,))
        rows_of = options.pop("rows_of", RowsOf())
        since = test - timedelta(days=3)
        base: dict[str, Vocabulary] = {}
        grown, split = None, None
        if old is not None:
            folder = self.folder / old
            paths = (folder / "vocabulary").glob("*.arrow")
            base = {path.stem: Vocabulary.load(path) for path in paths}
        if options.get("grows", old is not None):
            held = held_before(
                self.folder / str(old),
                self.log,
                self.catalogue,
                protocol,
                rows_of,
                20,
                roles,
                since,
            )
            assert held is not None
            grown = grow(self.engine, self.log, self.catalogue, held, protocol, since)
            split = grown.split
        split = split or make_split(self.engine, self.log, protocol)
        write_examples(
            self.engine,
            split,
            self.catalogue,
            self.folder / name,
            rows_of=rows_of,
            history_length=20,
            train_roles=roles,
            since=since,
            base=base,
            made_from={"split": protocol.model_dump(mode="json")},
            grown=grown,
        )
        return self.folder / name


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("grown"))
    shop.take_in(0, 8)
    return shop


def table_of(folder: Path, name: str, user: str | None = None) -> list[str]:
    """The rows of a table in no order, of a user the last one."""
    rows = [row for path in parts_of(folder, name) for row in pq.read_table(str(path)).to_pylist()]
    if user is not None:
        rows = list({row[user]: row for row in rows}.values())
    return sorted(map(repr, rows))  # nan is nan here


@pytest.mark.parametrize(
    ("roles", "rows_of"),
    [
        ((TRAIN,), RowsOf()),
        (LEARNT, RowsOf(per="event", histories={"history": (), "bought": ("purchase",)})),
    ],
    ids=["users", "events after a refit"],
)
def test_examples_of_days_are_those_of_the_whole_log(
    tmp_path: Path, roles: tuple[str, ...], rows_of: RowsOf
) -> None:
    """A day, and two more, with late events, new users, returns and prices."""
    shop = Shop(tmp_path)
    shop.take_in(0, 8)
    how = {"roles": roles, "rows_of": rows_of}
    old = shop.write("8", 8, None, grows=False, **how).name
    for day in (9, 11):
        shop.take_in(day if day == 9 else 10, day)
        if day == 11:
            compact(shop.log)
        grown = shop.write(str(day), day, old, **how)
        whole = shop.write(f"{day}-whole", day, old, grows=False, **how)
        old = grown.name
        names = ["items", "users", "train", "test"] + ["validation"] * (roles == (TRAIN,))
        for name in names:
            assert table_of(grown, name) == table_of(whole, name), name
        assert table_of(grown, "interactions") == table_of(whole, "interactions")
        assert table_of(grown, "serving", "user_id") == table_of(whole, "serving", "user_id")
        for path in (whole / "vocabulary").iterdir():
            assert (grown / "vocabulary" / path.name).read_bytes() == path.read_bytes()
        ours, theirs = (ExamplesSummary.load(folder) for folder in (grown, whole))
        assert (ours.events, ours.rows) == (theirs.events, theirs.rows)
        assert ours.fingerprint == theirs.fingerprint and theirs.read == shop.log.num_rows
    assert len(parts_of(grown, "interactions")) == 3
    assert [p.read_bytes() for p in parts_of(grown, "serving")[:2]] == [
        p.read_bytes() for p in parts_of(tmp_path / "9", "serving")
    ]


def test_a_day_on_spark_is_that_of_the_whole_log_on_the_embedded_engine(
    tmp_path: Path, spark: Engine, embedded: Engine
) -> None:
    shop = Shop(tmp_path, embedded)
    shop.take_in(0, 8)
    shop.write("8", 8, None, grows=False)
    shop.take_in(9, 9)
    whole = shop.write("whole", 9, "8", grows=False)
    shop.engine = spark
    grown = shop.write("9", 9, "8")
    for name in ("items", "users", "train", "validation", "test", "interactions"):
        assert table_of(grown, name) == table_of(whole, name), name
    assert table_of(grown, "serving", "user_id") == table_of(whole, "serving", "user_id")


def test_a_day_reads_what_came_and_the_histories_of_whoever_came(tmp_path: Path) -> None:
    """Beside it lies what a hundred times as many others did long ago, which is not read."""
    read = {}
    for others in (0, 100):
        shop = Shop(tmp_path / str(others))
        if others:
            long_ago = pa.concat_tables([shop.days[0]] * others)
            users = pa.array(np.arange(long_ago.num_rows) % 5000 + 1000)
            shop.log.append(long_ago.set_column(0, "user_id", users))
        shop.take_in(0, 8)
        shop.write("old", 8, None, grows=False)
        ByUser(shop.log)  # as the day before has left it
        shop.take_in(9, 9)
        summary = ExamplesSummary.load(shop.write("new", 9, "old"))
        read[others] = (summary.read, summary.log_rows, summary.rows)
    assert read[0][0] == read[100][0] and read[0][2] == read[100][2]
    assert read[100][1] > 4 * read[100][0]


def test_where_examples_cannot_be_grown_nothing_is_guessed(shop: Shop) -> None:
    shop.write("base", 8, None, grows=False)
    test = START + timedelta(days=9)
    protocol = GlobalTime(
        validation_start=test - timedelta(days=1),
        test_start=test,
        event_types=("click", "purchase"),
    )
    good = [shop.log, shop.catalogue, protocol, RowsOf(), 20, (TRAIN,), test - timedelta(days=3)]
    assert held_before(shop.folder / "base", *good) is not None
    earlier = {"validation_start": START, "test_start": START + timedelta(days=1)}
    wrong: list[tuple[int, Any]] = [
        (2, GlobalTime(event_types=("click", "purchase"))),
        (2, protocol.model_copy(update={"min_item_events": 2})),
        (2, protocol.model_copy(update={"event_types": ("click",)})),
        (2, protocol.model_copy(update=earlier)),
        (3, RowsOf(per="event")),
        (4, 21),
        (5, LEARNT),
        (6, None),
        (6, test),  # validation begins before
    ]
    for place, value in wrong:
        asked = [*good[:place], value, *good[place + 1 :]]
        assert held_before(shop.folder / "base", *asked) is None, value
    assert held_before(shop.folder / "nowhere", *good) is None
    changed = shop.users.set_column(1, "country", pa.array(["DE"] * shop.users.num_rows))
    shop.catalogue.write("user", changed)  # what lies in old rows is not so any more
    assert held_before(shop.folder / "base", *good) is None


def test_events_of_users_are_read_by_user(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.take_in(0, 3)
    by_user = ByUser(shop.log)
    assert by_user.made == shop.log.num_rows and ByUser(shop.log).made == 0
    asked = pa.array([7, 3, 99_999], pa.int64())
    events = pa.concat_tables([pq.read_table(str(path)) for path in shop.log.files])
    mine = events.filter(pc.is_in(events["user_id"], value_set=asked)).sort_by("position")
    compact(shop.log)
    again = ByUser(shop.log)  # parts of files that were joined hold the same events
    assert again.made == 0
    assert again.events_of(asked).sort_by("position").select(mine.column_names).equals(mine)
    assert again.events_of(asked.slice(2)).num_rows == 0


def test_a_bit_that_flips_beside_a_user_is_found(tmp_path: Path) -> None:
    """In what is read of a user, and in the key of one of the rows, by which it would be missed."""
    shop = Shop(tmp_path)
    shop.take_in(0, 1)
    (path, *_) = sorted((ByUser(shop.log).folder).iterdir())
    with pa.memory_map(str(path)) as source:
        part = pa.ipc.open_file(source).read_all()
    users, asked = part["user_id"].to_numpy(), int(part["user_id"][len(part) // 2].as_py())
    row = int(np.flatnonzero(users == asked)[-1])
    whole = path.read_bytes()
    for name in ("price", "_key"):
        values = part[name].to_numpy().tobytes()
        altered = bytearray(whole)
        altered[whole.rindex(values) + 8 * row + 6] ^= 1
        path.write_bytes(altered)
        with pytest.raises(
            DataError, match=r"is not what was written: remove .*by_user, and it is"
        ):
            ByUser(shop.log).events_of(pa.array([asked]))
        assert ByUser(shop.log).events_of(pa.array([99_999])).num_rows == 0  # is not read
    path.write_bytes(whole[:200])
    with pytest.raises(DataError, match="is not what was written"):
        ByUser(shop.log).events_of(pa.array([asked]))
