"""trivago: hand-written rows that hold the table's nastiness, and the real file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store.catalogue import Catalogue
from feature_store.columns import LABEL, LIST
from feature_store.engine import Engine
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.examples import RowsOf, write_examples
from feature_store.ingest import ingest
from feature_store.labels import LabelConfig
from feature_store.protocols import GlobalTime
from feature_store.sources.trivago import Trivago
from feature_store.splits import make_split

HEAD = (
    "user_id,session_id,timestamp,step,action_type,reference,"
    "platform,city,device,current_filters,impressions,prices"
)
PLACE = 'FR,"Marseille, France",tablet,'
T = 1_541_599_523
DAY = 86_400
ROWS = [
    f"U,s,{T},1,interaction item image,7,{PLACE},,",
    f"U,s,{T},3,clickout item,9,{PLACE}Hotel|Sauna,7|8|9,71|107|119.5",
    # of the same second, but after the click-out, though it stands before in no order at all
    f"U,s,{T},4,interaction item deals,8,{PLACE},,",
    f"U,s,{T},5,filter selection,Hotel,{PLACE},,",  # no hotel: no event
    f"U,s,{T + DAY},6,clickout item,5,{PLACE},7|8,70|100",  # clicked outside its list
    f"U,s,{T + 2 * DAY},7,clickout item,7,{PLACE},8|7,70|100",
    f"V,t,{T + 2 * DAY},1,search for item,8,{PLACE},,",
]


def write(folder: Path, rows: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.csv").write_text("".join(row + "\n" for row in [HEAD, *rows]))
    return folder


def as_parquet(folder: Path) -> Path:
    """The same rows in the Parquet layout: numbers are numbers, and nothing is null."""
    cells = [row.replace('"Marseille, France"', "Marseille; France").split(",") for row in ROWS]
    columns = dict(zip(HEAD.split(","), map(list, zip(*cells, strict=True)), strict=True))
    table = pa.table(
        {
            name: [int(v) for v in values]
            if name in ("timestamp", "step")
            else [v.replace(";", ",") or None for v in values]
            for name, values in columns.items()
        }
    )
    folder.mkdir(parents=True)
    pq.write_table(table, folder / "t.parquet.snappy")
    return folder


def events(source: Trivago, folder: Path) -> list[dict]:
    ingest(source, folder)
    return pq.read_table(EventLog.open(folder).files).sort_by("position").to_pylist()


def test_a_click_out_is_a_row_for_each_hotel_and_other_actions_one(tmp_path: Path) -> None:
    rows = events(Trivago(path=write(tmp_path / "raw", ROWS)), tmp_path / "log")
    assert [(r["hotel_id"], r["clicked"], r["place"], r["price"], r["list_id"]) for r in rows] == [
        (7, None, None, None, None),
        (7, 0, 1, 71, 3),
        (8, 0, 2, 107, 3),
        (9, 1, 3, 119.5, 3),
        (8, None, None, None, None),
        (5, None, None, None, None),  # the click itself
        (7, 0, 1, 70, 6),
        (8, 0, 2, 100, 6),
        (8, 0, 1, 70, 7),
        (7, 1, 2, 100, 7),
        (8, None, None, None, None),
    ]
    assert [r["time"].microsecond for r in rows[:5]] == [1, 3, 3, 3, 4]  # the steps
    assert rows[1]["city"] == "Marseille, France"
    assert (rows[1]["current_filters"], rows[6]["current_filters"]) == ("Hotel|Sauna", None)
    others = events(Trivago(path=as_parquet(tmp_path / "other")), tmp_path / "second")
    # lines of CSV count the header, rows of Parquet do not
    assert [row | {"list_id": row["list_id"] and row["list_id"] + 1} for row in others] == rows


def test_a_row_tells_what_its_session_did_before_also_of_no_hotel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As published, broken rows among it, and where the file is read in parts."""
    monkeypatch.setattr("feature_store.sources.trivago._BATCH_ROWS", 2)
    chunks = Trivago(path=as_parquet(tmp_path / "raw")).read_events()
    rows = pa.concat_tables([chunk.table for chunk in chunks]).to_pylist()
    told = [(r["hotel_id"], r["previous_action"], r["idle_seconds"]) for r in rows]
    click, deals = "clickout item", "interaction item deals"
    assert told == [
        (7, None, None),
        *[(hotel, "interaction item image", 0) for hotel in (7, 8, 9)],
        (8, click, 0),
        *[(hotel, "filter selection", DAY) for hotel in (5, 7, 8)],
        *[(hotel, click, DAY) for hotel in (8, 7)],
        (8, None, None),  # another's first
    ]
    broken = [ROWS[0], ROWS[2].replace(",8,", ",unknown,"), ROWS[4].replace(f"{T + DAY}", "soon")]
    (chunk,) = Trivago(path=write(tmp_path / "b", [*broken, ROWS[5]])).read_events()
    assert len(chunk.bad) == 2
    assert chunk.table["previous_action"].to_pylist() == [None, None, None]
    (chunk,) = Trivago(path=write(tmp_path / "c", [*broken[:2], ROWS[5]])).read_events()
    assert chunk.table["previous_action"].to_pylist() == [None, deals, deals]


def test_histories_hold_what_came_before_the_list_also_within_its_second(tmp_path: Path) -> None:
    source = Trivago(path=write(tmp_path / "raw", ROWS))
    ingest(source, tmp_path / "log")
    log, engine = EventLog.open(tmp_path / "log"), Engine()
    config = GlobalTime(validation_days=0.5, test_days=0.5, min_user_events=1)
    with pytest.raises(DataError, match="validation"):
        make_split(engine, log, config)  # nothing is asked in that window
    config = GlobalTime(validation_days=1.5, test_days=0.5)
    split = make_split(engine, log, config, LabelConfig())
    rows_of = RowsOf(
        per="event",
        histories={
            "touched": ("interaction item image", "interaction item deals"),
            "chosen": ("clickout item",),
        },
        positives=("chosen",),
        labels=True,
    )
    catalogue = Catalogue(tmp_path / "log", log.schema)
    write_examples(engine, split, catalogue, tmp_path / "examples", rows_of=rows_of)
    rows = {
        role: pq.read_table(tmp_path / "examples" / f"{role}.parquet", partitioning=None)
        for role in ("train", "test")
    }
    train, test = rows["train"], rows["test"]
    assert train["hotel_id"].to_pylist() and train[LABEL].to_pylist() == [0, 0, 1]
    assert len(set(train[LIST].to_pylist())) == 1 and train[LIST][0].as_py() != 0
    seven = train["hotel_id"][0].as_py()
    # the image of the same second, before the click-out; neither its rows nor the deals after it
    assert train["touched"].to_pylist() == [[seven]] * 3
    assert train["chosen"].to_pylist() == [[]] * 3
    eight = train["hotel_id"][1].as_py()
    assert test["touched"].to_pylist() == [[seven, eight]] * 2
    assert test["chosen"].to_pylist() == [[train["hotel_id"][2].as_py()]] * 2


BROKEN = [
    (ROWS[1].replace("71|107|119.5", "71|107"), "prices", "one for each"),
    (ROWS[1].replace("7|8|9", "7||9"), "impressions", "no list of hotels"),
    (ROWS[1].replace("7|8|9", ""), "impressions", "no list of hotels"),
    (ROWS[1].replace("item,9", "item,"), "reference", "not a hotel"),
    (ROWS[0].replace("image,7", "image,unknown"), "reference", "not a hotel"),
    (ROWS[0].replace(f"{T}", "soon"), "timestamp", "no second"),
    (ROWS[0].replace(",1,", ",-1,"), "step", "no number"),
    (ROWS[0].replace("U,", ",", 1), "user_id", "missing"),
]


@pytest.mark.parametrize(("row", "column", "reason"), BROKEN)
def test_a_broken_row_is_named(row: str, column: str, reason: str, tmp_path: Path) -> None:
    source = Trivago(path=write(tmp_path, [row, *ROWS[3:]]))
    (chunk,) = source.read_events()
    (bad,) = chunk.bad
    assert (bad.line, bad.column) == (2, column) and reason in bad.reason


def test_a_folder_without_one_table_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds none"):
        Trivago(path=tmp_path).fingerprint()
    with pytest.raises(DataError, match="no table is there"):
        Trivago(path=tmp_path / "absent").fingerprint()


def test_the_published_sample_has_its_counts(data_root: Callable[[str], Path]) -> None:
    table = pa.concat_tables([c.table for c in Trivago(path=data_root("trivago")).read_events()])
    listed = np.asarray(table["list_id"].is_valid())
    assert listed.sum() == 312_539 and len(table["list_id"].unique()) == 13_597 + 1
    # a hotel may stand twice in its list
    clicks = table.filter(pc.equal(table["clicked"], 1)).group_by("list_id").aggregate([])
    assert clicks.num_rows == 13_596
