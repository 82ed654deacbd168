"""What events are worth: hand-computed returns, and prices from the log or the catalogue."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.catalogue import Catalogue
from feature_store.engine import Engine, EngineConfig
from feature_store.event_log import EventLog
from feature_store.examples import write_examples
from feature_store.ingest import ingest
from feature_store.schema import Feature, Schema
from feature_store.sources.parquet import Columns, ParquetLog
from feature_store.splits import GlobalTime, LeaveOneOut, Split, make_split

SCHEMA = Schema(
    user="u",
    item="i",
    price="price",
    quantity="n",
    features=(
        Feature(name="u", kind="id", side="user", dtype="int64"),
        Feature(name="i", kind="id", side="item"),
        Feature(name="price", kind="dense", side="context", dtype="float32"),
        Feature(name="n", kind="dense", side="context", dtype="int64"),
    ),
)
ITEMS = {"a": 1, "b": 2, "c": 3, "d": 4}


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(EngineConfig(threads=1))


def split_of(
    engine: Engine, folder: Path, events: list[tuple[Any, ...]], **options: Any
) -> tuple[Split, Catalogue]:
    """Events of user, item, second, price, quantity; everyone also buys a and b long before."""
    before = [(user, item, -10, 1.0, 1) for user in {e[0] for e in events} for item in "ab"]
    users, items, at, prices, counts = zip(*before, *events, strict=True)
    log = EventLog.create(folder, SCHEMA)
    times = [datetime.fromtimestamp(1_000_000 + second, UTC) for second in at]
    log.append(pa.table({"u": users, "i": items, "time": times, "price": prices, "n": counts}))
    return make_split(engine, log, LeaveOneOut(**options)), Catalogue(folder, SCHEMA)


def values(
    engine: Engine, folder: Path, events: list[tuple[Any, ...]]
) -> dict[int, dict[str, float]]:
    """The worth of every test target by user and item."""
    split, catalogue = split_of(engine, folder / "log", events)
    write_examples(engine, split, catalogue, folder / "e")
    found = pq.read_table(folder / "e" / "test.parquet").to_pylist()
    names = {row: item for item, row in ITEMS.items()}
    return {
        row["u"]: {
            names[t]: v / 1e6 for t, v in zip(row["target"], row["target_value"], strict=True)
        }
        for row in found
    }


def test_a_purchase_is_worth_price_times_quantity_less_its_returns(
    engine: Engine, tmp_path: Path
) -> None:
    found = values(
        engine,
        tmp_path,
        [
            (1, "c", 0, 2.5, 4),  # kept: 10
            (2, "c", 0, 2.5, 4),
            (2, "c", 5, 2.5, -1),  # one of four came back: 7.5
            (3, "c", 0, 2.5, 4),
            (3, "c", 5, 2.5, -9),  # more came back than was bought: nothing, not less
            (4, "c", 0, 2.5, 4),
            (4, "d", 5, 9.0, -1),  # a return of something else
            (5, "c", 0, 2.5, 4),
            (5, "c", -1, 2.5, -4),  # a return from before the purchase
            (6, "c", 0, 2.5, None),  # nothing is known of how many
            (7, "c", 0, 2.5, 4),
            (7, "c", 0, 2.5, -3),  # of the same moment, as in logs that know days alone: 2.5
        ],
    )
    worth = {user: row["c"] for user, row in found.items()}
    assert worth == {1: 10.0, 2: 7.5, 3: 0.0, 4: 10.0, 5: 10.0, 6: 0.0, 7: 2.5}


def test_a_return_is_taken_from_the_purchase_before_it_whatever_its_role(
    engine: Engine, tmp_path: Path
) -> None:
    """An item bought in training, returned, and bought again in the test keeps its test worth."""
    found = values(
        engine,
        tmp_path,
        [(1, "c", 0, 1.0, 3), (1, "c", 1, 1.0, -3), (1, "d", 2, 1.0, 1), (1, "c", 3, 1.0, 2)],
    )
    assert found == {1: {"c": 2.0}}


def test_prices_may_lie_in_the_catalogue(engine: Engine, tmp_path: Path) -> None:
    schema = Schema(
        user="u",
        item="i",
        price="list_price",
        features=(
            *SCHEMA.features[:2],
            Feature(name="list_price", kind="dense", side="item", dtype="float32"),
        ),
    )
    log = EventLog.create(tmp_path / "log", schema)
    times = [datetime.fromtimestamp(second, UTC) for second in range(4)]
    log.append(pa.table({"u": [1] * 4, "i": list("abcd"), "time": times}))
    catalogue = Catalogue(tmp_path / "log", schema)
    catalogue.write("item", pa.table({"i": ["a", "b", "d"], "list_price": [1.0, None, 7.5]}))
    split = make_split(engine, log, LeaveOneOut())
    write_examples(engine, split, catalogue, tmp_path / "e")
    test = pq.read_table(tmp_path / "e" / "test.parquet").to_pylist()
    assert test[0]["target_value"] == [7_500_000]
    items = pq.read_table(tmp_path / "e" / "items.parquet")
    # the newest price before the test: d is sold in the test alone
    assert items["last_price"].to_pylist() == [None, 1.0, None, None, None]


def test_the_last_price_is_the_newest_before_the_test(engine: Engine, tmp_path: Path) -> None:
    split, catalogue = split_of(
        engine,
        tmp_path / "log",
        [(1, "c", 0, 2.0, 1), (1, "c", 1, 3.0, 1), (1, "c", 2, 99.0, 1)],
    )
    write_examples(engine, split, catalogue, tmp_path / "e")
    items = pq.read_table(tmp_path / "e" / "items.parquet")
    assert items["last_price"].to_pylist() == [None, 1.0, 1.0, 3.0]


def test_an_item_bought_twice_in_the_test_is_one_target_worth_both(
    engine: Engine, tmp_path: Path
) -> None:
    log = EventLog.create(tmp_path / "log", SCHEMA)
    at = [0, 86_400 * 10, 86_400 * 20, 86_400 * 20 + 5, 86_400 * 20 + 9]
    times = [datetime.fromtimestamp(second, UTC) for second in at]
    rows = {"u": [1] * 5, "i": list("abdcd"), "time": times}
    log.append(pa.table({**rows, "price": [1.0, 1, 2, 5, 3], "n": [1, 1, 1, 1, 2]}))
    split = make_split(engine, log, GlobalTime(test_days=1, validation_days=15))
    write_examples(engine, split, Catalogue(tmp_path / "log", SCHEMA), tmp_path / "e")
    (test,) = pq.read_table(tmp_path / "e" / "test.parquet").to_pylist()
    assert test["target"] == [ITEMS["d"], ITEMS["c"]]
    assert test["target_value"] == [8_000_000, 5_000_000]


def test_money_keeps_its_cents(engine: Engine, tmp_path: Path) -> None:
    """In 32 bits 123456789.37 is 123456792."""
    rows = {
        **{"u": [1, 1, 1], "i": [1, 2, 3], "t": [10, 20, 30]},
        **{"price": [1.0, 2.0, 123456789.37], "kilos": [1.0, 1.0, 0.1]},
    }
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    columns = Columns(user="u", item="i", time="t", price="price", quantity="kilos")
    report = ingest(ParquetLog(path=str(tmp_path / "log.parquet"), columns=columns), tmp_path / "s")
    log = EventLog.open(tmp_path / "s")
    assert pq.read_table(log.files[0])["price"].to_pylist() == rows["price"]
    split = make_split(engine, log, LeaveOneOut())
    write_examples(engine, split, Catalogue(log.folder, log.schema), tmp_path / "examples")
    test = pq.read_table(tmp_path / "examples" / "test.parquet")
    assert test["target_value"].to_pylist() == [[12_345_678_937_000]]  # millionths, of 100 grams
    assert (report.distinct_items, report.distinct_users) == (3, 1)
