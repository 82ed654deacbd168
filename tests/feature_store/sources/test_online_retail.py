"""Online Retail: hand-written lines that hold the table's nastiness, and the real file."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest import ingest
from feature_store.sources import SourceConfig
from feature_store.sources.online_retail import CHARGES, OnlineRetail

HEAD = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
DAY = "2010-12-01"
GOOD = [
    f"536365,85123A,WHITE  HEART ,6,{DAY} 08:26:00,2.55,17850.0,United Kingdom",
    f"536365,85123A,WHITE  HEART ,6,{DAY} 08:26:00,2.55,17850.0,United Kingdom",  # twice
    f"536366,85123a,CREAM HEART,2,{DAY} 09:00:00,2.75,17850.0,France",
    f'536367,22423,"FRAME 7"" SINGLE, SMALL",80995,{DAY} 09:02:00,0.001,13047,Unspecified',
    f"536368,22423,A FRAME,1,{DAY} 09:03:00,0.0,13047.0,EIRE",  # a free item
    f"C536369,22423,,-80995,{DAY} 09:04:00,0.001,13047.0,Unspecified",  # a cancelled order
]
NO_CUSTOMER = f"536414,22139,,56,{DAY} 11:52:00,0.0,,United Kingdom"
CHARGE = f"536370,POST,POSTAGE,3,{DAY} 08:45:00,18.0,12583.0,France"
BY_HAND = f"C536371,m,Manual,-1,{DAY} 08:46:00,4.5,12583.0,France"
BAD_DEBT = f"A563186,B,Adjust bad debt,1,{DAY} 14:51:00,-11062.06,,United Kingdom"


def write(folder: Path, lines: list[str], name: str = "OnlineRetail.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = "".join(line + "\n" for line in [HEAD, *lines]).encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder


def read(folder: Path) -> tuple[list[dict], list[dict], list[dict]]:
    log = EventLog.open(folder)
    catalogue = Catalogue(folder, log.schema)
    events = pq.read_table(log.files).sort_by("position").to_pylist()
    return events, catalogue.read("item").to_pylist(), catalogue.read("user").to_pylist()


def test_purchases_and_returns(tmp_path: Path) -> None:
    ingest(OnlineRetail(path=write(tmp_path / "r", GOOD)), tmp_path / "s")
    events, _, _ = read(tmp_path / "s")
    shown = [
        (e["customer_id"], e["stock_code"], e["quantity"], e["unit_price"], e["event_type"])
        for e in events
    ]
    assert shown == [
        (17850, "85123A", 6, np.float32(2.55), "purchase"),
        (17850, "85123A", 6, np.float32(2.55), "purchase"),
        (17850, "85123A", 2, 2.75, "purchase"),
        (13047, "22423", 80995, np.float32(0.001), "purchase"),
        (13047, "22423", 1, 0.0, "purchase"),
        (13047, "22423", -80995, np.float32(0.001), "return"),
    ]
    assert f"{events[0]['time']}" == "2010-12-01 08:26:00"


def test_items_and_users_have_what_their_lines_say_most_often(tmp_path: Path) -> None:
    ingest(OnlineRetail(path=write(tmp_path / "r", GOOD)), tmp_path / "s")
    _, items, users = read(tmp_path / "s")
    assert items == [
        {"stock_code": "22423", "title": "A FRAME"},  # of equals, the first by alphabet
        {"stock_code": "85123A", "title": "WHITE HEART"},
    ]
    assert users == [
        {"customer_id": 13047, "country": "EIRE"},  # twice unspecified, once known
        {"customer_id": 17850, "country": "United Kingdom"},
    ]


def test_an_item_without_description_has_no_title(tmp_path: Path) -> None:
    line = f"1,22139,,1,{DAY} 08:00:00,1.0,12583.0,Unspecified"
    ingest(OnlineRetail(path=write(tmp_path / "r", [line])), tmp_path / "s")
    _, items, users = read(tmp_path / "s")
    assert items == [{"stock_code": "22139", "title": None}]
    assert users == [{"customer_id": 12583, "country": None}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (NO_CUSTOMER, "column 'CustomerID': is missing: the line is no customer's event"),
        (CHARGE, "column 'StockCode': 'POST' is a charge .* products_only = false keeps it"),
        (BY_HAND, "column 'StockCode': 'm' is a charge"),
        (BAD_DEBT.replace(",,", ",1.0,"), "column 'UnitPrice': '-11062.06' is not a price of 0"),
        (GOOD[0].replace("2.55", ""), "column 'UnitPrice': '' is not a price of 0"),
        (GOOD[0].replace("17850.0", "17850.5"), "'17850.5' is not a customer's number"),
        (GOOD[0].replace(",6,", ",0,"), "column 'Quantity': '0' is not a whole number other"),
        (GOOD[0].replace("85123A", " "), "column 'StockCode': ' ' is missing: the line is of no"),
        (GOOD[0].replace(DAY, "2010-13-01"), "column 'time': '2010-13-01 08:26:00' is not a time"),
        ("1,2,3", "3 columns instead of 8"),
    ],
)
def test_lines_that_are_no_events_are_named_with_the_way_out(
    tmp_path: Path, line: str, message: str
) -> None:
    source = OnlineRetail(path=write(tmp_path / "r", [GOOD[0], line]))
    with pytest.raises(DataError, match=rf"OnlineRetail\.csv:3.*{message}") as caught:
        ingest(source, tmp_path / "s")
    assert "\n" not in str(caught.value) and "--quarantine" in str(caught.value)
    report = ingest(source, tmp_path / "s", quarantine=True)
    assert (report.events.stored, report.events.quarantined) == (1, 1)
    aside = pq.read_table(tmp_path / "s" / "quarantine.parquet").to_pylist()
    assert aside[0]["line"] == 3
    if line.count(",") == 7 and "13-01" not in line:  # nothing of the line is lost
        assert list(json.loads(aside[0]["raw"]).values()) == line.split(",")


def test_charges_can_stay(tmp_path: Path) -> None:
    folder = write(tmp_path / "r", [GOOD[0], CHARGE, BY_HAND])
    source = OnlineRetail(path=folder, products_only=False)
    ingest(source, tmp_path / "s")
    events, items, _ = read(tmp_path / "s")
    assert [e["stock_code"] for e in events] == ["85123A", "POST", "M"]
    assert [i["stock_code"] for i in items] == ["85123A", "M", "POST"]
    assert source.fingerprint() != OnlineRetail(path=folder).fingerprint()


def test_the_file_may_be_gzipped_and_named_alone(tmp_path: Path) -> None:
    plain = write(tmp_path / "r", GOOD)
    packed = write(tmp_path / "z", GOOD, "OnlineRetail.csv.gz")
    other = write(tmp_path / "o", GOOD, "shop.csv") / "shop.csv"
    for number, path in enumerate((plain, packed, other)):
        ingest(OnlineRetail(path=path), tmp_path / f"s{number}")
    assert read(tmp_path / "s0") == read(tmp_path / "s1") == read(tmp_path / "s2")


def test_where_no_table_is_there_the_message_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"give OnlineRetail\.csv or OnlineRetail\.csv\.gz, or"):
        ingest(OnlineRetail(path=tmp_path), tmp_path / "s")
    (tmp_path / "Online Retail.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"is no CSV: save the sheet in it as OnlineRetail\.csv"):
        ingest(OnlineRetail(path=tmp_path / "Online Retail.xlsx"), tmp_path / "s")


def test_options_are_checked() -> None:
    adapter: TypeAdapter = TypeAdapter(SourceConfig)
    given = {"source": "online_retail", "path": "x"}
    assert adapter.validate_python(given) == OnlineRetail(path="x")
    for options in ({"source": "online_retail"}, {**given, "products": True}):
        with pytest.raises(ValidationError):
            adapter.validate_python(options)


def test_the_real_file(data_root: Callable[[str], Path], tmp_path: Path) -> None:
    source = OnlineRetail(path=data_root("online-retail"), products_only=False)
    report = ingest(source, tmp_path / "s", quarantine=True)
    assert (report.events.read, report.events.stored) == (541_909, 406_829)
    assert report.reasons == {"is missing: the line is no customer's event": 135_080}
    assert (report.users.stored, report.items.stored) == (4_372, 3_684)
    assert report.events_without_item == report.events_without_user == 0

    events = pq.read_table(EventLog.open(tmp_path / "s").files)
    raws = pq.read_table(tmp_path / "s" / "quarantine.parquet")["raw"].to_pylist()
    aside = [json.loads(raw) for raw in raws]
    quantity = events["quantity"].to_numpy()
    price = events["unit_price"].to_numpy().astype(float)
    lost = np.array([[float(row["Quantity"]), float(row["UnitPrice"])] for row in aside])
    # no line is lost: all of the money and all returns are stored or set aside
    total = (quantity * price).sum() + lost.prod(axis=1).sum()
    assert total == pytest.approx(9_747_747.93, abs=0.005)
    assert (quantity < 0).sum() + (lost[:, 0] < 0).sum() == 10_624
    assert (price <= 0).sum() + (lost[:, 1] <= 0).sum() == 2_517
    returns = events["event_type"].to_numpy() == "return"
    assert np.array_equal(returns, quantity < 0) and returns.sum() == 8_905
    codes = {row["StockCode"].upper() for row in aside} | set(events["stock_code"].to_pylist())
    assert len(codes) == 3_958  # 4,070 as published, of which 112 differ in case alone

    assert pc.sum(pc.is_in(events["stock_code"], pa.array(CHARGES))).as_py() == 1_916
