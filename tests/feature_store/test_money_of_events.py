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
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples import write_examples
from feature_store.ingest import ingest
from feature_store.protocols import GlobalTime, LeaveOneOut
from feature_store.schema import Feature, Schema
from feature_store.sources.parquet import Columns, ParquetLog
from feature_store.splits import Split, make_split
from recsys.data.examples import Examples

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


COSTED = Schema(
    **SCHEMA.model_dump(exclude={"features", "cost"}),
    cost="cost",
    features=(
        *SCHEMA.features,
        Feature(name="cost", kind="dense", side="context", dtype="float64"),
    ),
)


def test_profit_is_what_is_left_above_the_cost_net_of_returns(
    engine: Engine, tmp_path: Path
) -> None:
    """Rows of user, item, second, price, quantity, cost of a piece."""
    rows = [
        (1, "c", 0, 2.5, 4, 2.0),  # 10 - 8
        (2, "c", 0, 2.5, 4, 2.0),
        (2, "c", 5, 2.5, -1, 2.0),  # one came back: 7.5 - 6
        (3, "c", 0, 2.5, 4, 2.0),
        (3, "c", 5, 2.5, -9, 2.0),  # all came back, and no more than all
        (4, "c", 0, 2.5, 4, 3.25),  # sold below its cost: 10 - 13
        (5, "c", 0, 2.5, 4, None),  # nobody knows the cost: no profit is counted
        (6, "c", 0, 2.5, 4, 2.0),
        (6, "c", 5, 2.0, -2, None),  # taken back at 2 each, at the purchase's cost: 6 - 4
        (7, "c", 0, None, 4, 2.0),  # nor the price
        (8, "c", 0, 0.0, 4, 2.0),  # given away: 0 - 8
    ]
    before = [(u, i, -10, 1.0, 1, 0.5) for u in range(1, 9) for i in "ab"]
    users, items, at, prices, counts, costs = zip(*before, *rows, strict=True)
    times = [datetime.fromtimestamp(1_000_000 + second, UTC) for second in at]
    log = EventLog.create(tmp_path / "log", COSTED)
    events = {"u": users, "i": items, "time": times, "price": prices, "n": counts, "cost": costs}
    log.append(pa.table(events))
    split = make_split(engine, log, LeaveOneOut())
    write_examples(engine, split, Catalogue(tmp_path / "log", COSTED), tmp_path / "e")
    test = pq.read_table(tmp_path / "e" / "test.parquet").to_pylist()
    profit = {row["u"]: row["target_profit"][0] / 1e6 for row in test}
    assert profit == {1: 2.0, 2: 1.5, 3: 0.0, 4: -3.0, 5: 0.0, 6: 2.0, 7: 0.0, 8: -8.0}
    worth = {row["u"]: row["target_value"][0] / 1e6 for row in test}
    assert worth == {1: 10.0, 2: 7.5, 3: 0.0, 4: 10.0, 5: 10.0, 6: 6.0, 7: 0.0, 8: 0.0}
    assert Examples(tmp_path / "e").last_costs.tolist() == [0.0, 0.5, 0.5, 0.0]  # a, b; c later


def test_costs_may_lie_in_the_catalogue_and_prices_in_the_events(
    engine: Engine, tmp_path: Path
) -> None:
    rows = {"u": [1] * 3, "i": list("abd"), "t": [10, 20, 30], "price": [1.0, 2.0, 3.5]}
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    pq.write_table(pa.table({"i": list("abd"), "buy": [0.5, None, 1.25]}), tmp_path / "i.parquet")
    source = ParquetLog(
        path=str(tmp_path / "log.parquet"),
        items=str(tmp_path / "i.parquet"),
        columns=Columns(user="u", item="i", time="t", price="price", cost="buy"),
    )
    ingest(source, tmp_path / "s")
    log = EventLog.open(tmp_path / "s")
    assert log.schema["buy"].dtype == "float64"
    split = make_split(engine, log, LeaveOneOut())
    write_examples(engine, split, Catalogue(log.folder, log.schema), tmp_path / "e")
    (test,) = pq.read_table(tmp_path / "e" / "test.parquet").to_pylist()
    assert (test["target_value"], test["target_profit"]) == ([3_500_000], [2_250_000])
    items = pq.read_table(tmp_path / "e" / "items.parquet")
    assert items["last_cost"].to_pylist() == [None, 0.5, None, None]


def test_money_that_cannot_be_counted_is_one_error(engine: Engine, tmp_path: Path) -> None:
    split, catalogue = split_of(engine, tmp_path / "log", [(1, "c", 0, 1e30, 4)])
    with pytest.raises(DataError, match=r"of 4e\+30 is more money than .*column 'price'"):
        write_examples(engine, split, catalogue, tmp_path / "e")


def test_a_cost_without_a_price_is_refused_and_none_keeps_fingerprints() -> None:
    with pytest.raises(ValueError, match="'cost' is what a piece costs the seller: it needs a"):
        Schema(user="u", item="i", cost="price", features=SCHEMA.features)
    assert SCHEMA.fingerprint == "764970c409801419"
    assert COSTED.fingerprint != SCHEMA.fingerprint
