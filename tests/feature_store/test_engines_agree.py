"""Both engines make the same rows, in the same order, of one log that has everything nasty."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.catalogue import Catalogue
from feature_store.columns import POSITION
from feature_store.engine import Engine
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, parts_of, write_examples
from feature_store.ingest import append, ingest
from feature_store.labels import LabelConfig, NegativesConfig, TaskConfig
from feature_store.parquet import read_parquet
from feature_store.protocols import (
    LEARNT,
    AnyProtocol,
    Fixed,
    GlobalTime,
    ItemHoldout,
    LastLists,
    LeaveOneOut,
    NextBasket,
    Random,
    UserHoldout,
)
from feature_store.schema import Feature, Schema
from feature_store.sources import ParquetLog
from feature_store.splits import make_split

SCHEMA = Schema(
    user="u",
    item="i",
    label="stars",
    price="price",
    cost="cost",
    quantity="n",
    event_type="type",
    list="page",
    place="place",
    published_role="part",
    features=(
        Feature(name="u", kind="id", side="user"),
        Feature(name="country", kind="id", side="user"),
        Feature(name="i", kind="id", side="item", dtype="int64"),
        Feature(name="tags", kind="bag", side="item"),
        Feature(name="cost", kind="dense", side="item", dtype="float64"),
        Feature(name="type", kind="id", side="context"),
        Feature(name="device", kind="id", side="context"),
        Feature(name="page", kind="id", side="context", dtype="int64"),
        Feature(name="place", kind="dense", side="context", dtype="float32"),
        Feature(name="stars", kind="dense", side="context", dtype="float32"),
        Feature(name="price", kind="dense", side="context", dtype="float64"),
        Feature(name="n", kind="dense", side="context", dtype="float64"),
        Feature(name="part", kind="text", side="context"),
    ),
)
USERS, ITEMS, EVENTS = 24, 15, 300
# in the order of bytes, which is none of a language: ASCII, accents, astral planes, blanks
NAMES = [
    "Zoë",
    "zoe",
    "Ångström",
    "ab",
    "a b",
    "É",
    "e",
    "\U0001f600",
    "￮",
    "ß",
    "10",
    "9",
    "\uff21",
]


def events() -> pa.Table:
    """Events at equal moments, before 1970 and between seconds; returns; absent values."""
    random = np.random.default_rng(0)

    def some(values: Any, absent: float) -> pa.Array:
        return pa.array(values, mask=random.random(EVENTS) < absent)

    seconds = np.sort(random.integers(-40 * 86_400, 40 * 86_400, EVENTS) // 3_600 * 3_600)
    micros = seconds * 1_000_000 + random.choice([0, 1, 999_999], EVENTS)
    page = np.arange(EVENTS) // 4
    return pa.table(
        {
            "u": [NAMES[n % 13] + "'`\"\\"[n // 13 :] for n in random.integers(0, USERS, EVENTS)],
            "i": random.integers(0, ITEMS, EVENTS) - 1,  # -1 and 0 are ids, too
            "time": pa.array(micros, pa.timestamp("us")),
            "type": some(random.choice(["click", "buy"], EVENTS), 0.1),
            "device": some(random.choice(NAMES, EVENTS), 0.2),
            "page": some(page, 0.2),
            "place": some((np.arange(EVENTS) % 4 + 1).astype(np.float32), 0.2),
            "stars": some(random.integers(0, 6, EVENTS).astype(np.float32), 0.2),
            "price": some(random.random(EVENTS) * 10, 0.1),
            "n": some(random.choice([1.0, 2.0, 0.1, -1.0], EVENTS), 0.05),
            "part": random.choice(["train", "train", "test"], EVENTS),
        }
    )


CATALOGUE = {
    "i": list(range(-1, ITEMS + 2)),
    "tags": [[], None, *[["new", "é"][: n % 3] for n in range(ITEMS + 1)]],
    "cost": [None, *np.random.default_rng(1).random(ITEMS + 2).round(3).tolist()],
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    folder = tmp_path_factory.mktemp("a=1 [log] {x}*")
    log = EventLog.create(folder, SCHEMA)
    every = events()
    for start in (0, 100):
        log.append(every.slice(start, 100 if not start else None))
    catalogue = Catalogue(folder, SCHEMA)
    catalogue.write("item", pa.table(CATALOGUE))
    catalogue.write("user", pa.table({"u": ["ab", "e"], "country": ["nl", None]}))
    return log


def with_clock(log: EventLog, clock: str) -> EventLog:
    return EventLog(log.folder, SCHEMA.model_copy(update={"clock": clock}))


def moment(day: float) -> datetime:
    return datetime.fromtimestamp(day * 86_400, UTC)


CUTS = {"validation_start": moment(20), "test_start": moment(30)}
PROTOCOLS: dict[str, AnyProtocol] = {
    "leave one out": LeaveOneOut(min_user_events=3, min_item_events=5, min_label=1.0),
    "next basket": NextBasket(basket="day", min_baskets=3),
    "baskets of moments": NextBasket(event_types=("click",)),
    "global time": GlobalTime(**CUTS),
    "days": GlobalTime(validation_days=10, test_days=10, windows_back=1),
    "last lists": LastLists(),
    "user holdout": UserHoldout(),
    "item holdout": ItemHoldout(seed=3),
    "random": Random(seed=5),
    "folds": Random(folds=3, fold=1, validation=0.2),
    "fixed": Fixed(validation=0.25),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_event_has_the_same_role(
    name: str, log: EventLog, spark: Engine, embedded: Engine
) -> None:
    made = []
    for engine in (embedded, spark):
        split = make_split(engine, log, PROTOCOLS[name])
        made.append((split.counts, engine.collect(split.events.order_by(POSITION))))
    (counts, rows), (others, theirs) = made
    assert counts == others and len(counts) >= 3
    assert_same(rows, theirs)


@dataclass(frozen=True)
class Shape:
    """Examples of one shape."""

    protocol: AnyProtocol
    rows_of: RowsOf | None = None
    labels: LabelConfig | None = None
    options: dict[str, Any] = field(default_factory=dict)
    clock: str = "time"


SHAPES = {
    "sequences with money": Shape(
        LeaveOneOut(),
        RowsOf(histories={"history": (), "bought": ("buy",)}),
        options={"since": moment(0), "lead": 2},
    ),
    "events, refitted": Shape(
        GlobalTime(**CUTS), RowsOf(per="event"), options={"train_roles": LEARNT}
    ),
    "labels of lists": Shape(
        LastLists(),
        RowsOf(
            per="event",
            labels=True,
            histories={"history": (), "liked": ("click",)},
            positives=("liked",),
            compared=("price",),
            delay=7200,
        ),
        LabelConfig(
            positive_from=3.0,
            leave_out=(5.0,),
            tasks={
                "bought": TaskConfig(event_types=("buy",), among=("buy", "click")),
                "many": TaskConfig(column="n", positive_from=1.5),
            },
        ),
    ),
    "drawn negatives": Shape(
        UserHoldout(input=0),
        RowsOf(per="event", labels=True),
        LabelConfig(
            positive_from=3.0,
            negatives=NegativesConfig(per_positive=3, drawn="popularity", exponent=0.5),
        ),
        {"negatives": NegativesConfig(per_positive=3, drawn="popularity", exponent=0.5)},
    ),
    "keys": Shape(LeaveOneOut(), options={"keyed": ("u", "device")}),
    "no order": Shape(Random(), RowsOf(per="event"), clock="none"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_examples_hold_the_same_rows_in_the_same_order(
    name: str, log: EventLog, spark: Engine, embedded: Engine, tmp_path: Path
) -> None:
    shape = SHAPES[name]
    log = with_clock(log, shape.clock)
    catalogue = Catalogue(log.folder, log.schema)
    folders = []
    for engine in (embedded, spark):
        folders.append(tmp_path / engine.config.kind)
        split = make_split(engine, log, shape.protocol, shape.labels)
        write_examples(
            engine,
            split,
            catalogue,
            folders[-1],
            rows_of=shape.rows_of,
            history_length=5,
            **shape.options,
        )
    same_examples(*folders)


ROWS = {
    "user": ["é", "e", "é", "é", "e", "z", "e"],
    "item": [1, 2, 1, 3, 2, 9, 2],
    "time": [10, 20, 10, 30, 20, 40, 20],
    "price": [2.0, 4.0, 3.0, 1.0, 4.0, 1.0, 8.0],
    "n": [1, 2, 1, 1, 2, 1, 4],
}


@pytest.mark.parametrize("unique", [(), ("user", "item", "time")], ids=["all", "unique"])
def test_an_ingest_and_an_append_set_the_same_rows_aside(
    unique: tuple[str, ...], spark: Engine, embedded: Engine, tmp_path: Path
) -> None:
    """Of rows that repeat each other, in a file and in what is there, the same ones are kept."""
    pq.write_table(pa.table({"item": [1, 2]}), tmp_path / "items.parquet")
    first = pa.table(ROWS)
    later = pa.concat_tables([first.slice(0, 3), first.slice(2, 1), first.slice(5, 2)])
    told, stores = [], []
    for engine in (embedded, spark):
        stores.append(store := tmp_path / engine.config.kind)
        for number, rows in enumerate((first.slice(0, 5), later)):
            path = tmp_path / f"{number}.parquet"
            pq.write_table(rows, path)
            source = ParquetLog(
                path=str(path),
                columns={**{n: n for n in ROWS if n != "n"}, "quantity": "n"},
                items=str(tmp_path / "items.parquet"),
                unique=unique,
            )
            take_in = append if number else ingest
            report = take_in(source, store, quarantine=True, engine=engine.config)
            told.append(report.model_dump(exclude={"finished", "seconds", "appended"}))
    assert told[:2] == told[2:]
    for path in stores[0].rglob("*.parquet"):
        same = stores[1] / path.relative_to(stores[0])
        assert_same(read_parquet(path), read_parquet(same))
    assert EventLog.open(stores[0]).fingerprint == EventLog.open(stores[1]).fingerprint


def same_examples(mine: Path, theirs: Path) -> None:
    """Whatever lies in one folder lies in the other, however it is cut into files."""
    names = [sorted(path.name for path in folder.iterdir()) for folder in (mine, theirs)]
    assert names[0] == names[1]
    for name in names[0]:
        table, kind = name.split(".")[0], name.split(".")[-1]
        if kind == "parquet":
            rows, others = (
                pa.concat_tables(read_parquet(part) for part in parts_of(folder, table))
                for folder in (mine, theirs)
            )
            assert_same(rows, others)
        elif kind == "json":
            assert (mine / name).read_text() == (theirs / name).read_text()
        else:
            for path in (mine / name).iterdir():
                assert path.read_bytes() == (theirs / name / path.name).read_bytes()


def assert_same(rows: pa.Table, others: pa.Table) -> None:
    """Types and values are the same, bit by bit."""
    assert rows.schema.remove_metadata() == others.schema.remove_metadata()
    for name in rows.column_names:
        mine, theirs = (table[name].combine_chunks() for table in (rows, others))
        if pa.types.is_floating(mine.type):
            same = np.array_equal(bits(mine), bits(theirs))
            assert same and mine.is_null().equals(theirs.is_null()), name
        else:
            assert mine.equals(theirs), name


def bits(numbers: pa.Array) -> np.ndarray:
    return numbers.fill_null(0).to_numpy().view(f"i{numbers.type.bit_width // 8}")
