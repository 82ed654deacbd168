"""People's columns may be called anything: what we make of them never gets in the way."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from feature_store.catalogue import Catalogue
from feature_store.columns import OF_MODULES, fault_of, free_name
from feature_store.engine import Engine, EngineConfig
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, write_examples
from feature_store.ingest import ingest
from feature_store.protocols import LeaveOneOut
from feature_store.sources.parquet import Columns, ParquetLog
from feature_store.splits import make_split

# ours, the engine's, names that differ in case alone, and what no file or module can be called
NASTY = (
    *("role", "_role", "_row", "_id", "_at", "_return", "_lost", "_price", "_count", "count", "n"),
    *("position", "Position", "time", "history", "history_time", "target", "label", "Label"),
    *("train_events", "last_price", "expected_items", "_in_history", "_user_row", "u_right"),
    *("USER", "Item", "age", "Age", "AGE", "brand.name", "brand", "price/unit", "a#b", "..", "/"),
    *("a b", 'a"b', "a'b", "a\\b", "a\nb", "a\0b", "", " ", "select", "rowid", "type", "values"),
    *("größe", "名前", "x" * 300, "probability", "score", "rank", "title", "item_id"),
)
NUMBERS = ("n", "count")  # their roles make them numbers, of items too
EVENTS = {"user": [0, 0, 0, 1, 1, 1, 2, 2, 2], "item": [0, 1, 2, 1, 2, 0, 2, 0, 1]}
names = st.one_of(st.sampled_from(NASTY), st.text(max_size=12))


@given(st.lists(st.tuples(names, st.sampled_from(["event", "user", "item"])), max_size=20))
def test_every_column_gets_a_name_that_a_feature_can_have(columns: list[tuple[str, str]]) -> None:
    taken: set[str] = set()
    for column, side in columns:
        name = free_name(column, side, taken)
        assert fault_of(name) is None and name.casefold() not in taken
        assert not hasattr(nn.ModuleDict(), name), "no table could have this name"
        plain = column.casefold() not in taken | OF_MODULES and fault_of(column) is None
        assert name == column if plain else name != column
        taken.add(name.casefold())


@pytest.fixture(scope="module")
def nasty_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a log in which all those names occur as columns of events, items and users."""
    folder = tmp_path_factory.mktemp("names")
    rest = [name for name in NASTY if name not in ("time", "")]
    columns = {**EVENTS, "time": list(range(9)), **{name: list(range(9)) for name in rest}}
    pq.write_table(pa.table(columns), folder / "events.parquet")
    of_sides = [name for name in NASTY if name not in NUMBERS]
    for side in ("user", "item"):
        table = {side: [0, 1, 2], **{name: [4, 5, None] for name in of_sides}}
        pq.write_table(pa.table(table), folder / f"{side}s.parquet")
    source = ParquetLog(
        path=str(folder / "events.parquet"),
        columns=Columns(user="user", item="item", time="time", price="n", quantity="count"),
        items=str(folder / "items.parquet"),
        users=str(folder / "users.parquet"),
        features=tuple(name for name in rest if name not in NUMBERS),
        kinds=dict.fromkeys(of_sides[12:], "dense"),
        unique=("user", "item", "count", "brand.name", "Position"),
    )
    report = ingest(source, folder / "store")
    assert report.events.stored == 9 and report.items.stored == report.users.stored == 3
    assert report.renamed["brand.name"] in ("brand_name", "item_brand_name", "user_brand_name")
    return folder / "store"


def test_all_values_arrive_under_some_name(nasty_log: Path) -> None:
    log = EventLog.open(nasty_log)
    events = pq.read_table(log.files[0])
    assert events.num_columns == 4 + len(NASTY) - 2  # position; neither a second time nor ""
    assert all(column.to_pylist() == list(range(9)) for column in events.columns[3:])
    for side in ("user", "item"):
        rows = Catalogue(nasty_log, log.schema).read(side)  # type: ignore[arg-type]
        assert rows.num_columns == 1 + len(NASTY) - len(NUMBERS)
        assert all(column.to_pylist() == [4, 5, None] for column in rows.columns[1:])


@pytest.mark.parametrize("per", ["user", "event"])
def test_examples_hold_all_of_them(nasty_log: Path, tmp_path: Path, per: str) -> None:
    log = EventLog.open(nasty_log)
    rows_of = RowsOf(per=per)  # type: ignore[arg-type]
    with Engine(EngineConfig(threads=1)) as engine:
        split = make_split(engine, log, LeaveOneOut())
        catalogue = Catalogue(nasty_log, log.schema)
        write_examples(engine, split, catalogue, tmp_path / "examples", rows_of=rows_of)
    train = pq.ParquetFile(next((tmp_path / "examples" / "train.parquet").glob("*"))).read()
    columns = set(train.column_names)
    assert len(columns) == train.num_columns
    assert columns >= {f.name for f in log.schema.of_side("user")}
    if per == "event":
        assert columns >= {f.name for f in log.schema.of_side("context")}
