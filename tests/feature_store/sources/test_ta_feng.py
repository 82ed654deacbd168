"""Ta-Feng: hand-written lines that hold the table's nastiness, and the real file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest import ingest
from feature_store.sources.ta_feng import ARCHIVE, TABLE, TaFeng

HEAD = (
    "TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,ASSET,"
    "SALES_PRICE"
)
GOOD = [
    "11/1/2000,00418683,45-49,115,110411,0078895770025,2,24,30",
    "12/25/2000,00418683,50-54,Others,110411,0078895770025,1,48,46",  # below its cost
    "2/3/2001,00418683,45-49,115,110411,4710199010372,3,10,20",
    "2/3/2001,418683,,115,120107,4710199010372,9999,444000,444000",  # another customer
]


def write(folder: Path, lines: list[str], *, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    quoted = (",".join(f'"{value}"' for value in line.split(",")) for line in [HEAD, *lines])
    content = b"\xef\xbb\xbf" + "".join(line + "\r\n" for line in quoted).encode()
    if packed:
        with zipfile.ZipFile(folder / ARCHIVE, "w") as archive:
            archive.writestr(TABLE, content)
    else:
        (folder / TABLE).write_bytes(content)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_lines_become_purchases_with_price_and_cost_of_a_piece(
    tmp_path: Path, packed: bool
) -> None:
    ingest(TaFeng(path=write(tmp_path / "r", GOOD, packed=packed)), tmp_path / "s")
    log = EventLog.open(tmp_path / "s")
    events = pq.read_table(log.files).sort_by("position").to_pylist()
    ids = [(e["customer_id"], e["product_id"]) for e in events]
    assert ids == [
        ("00418683", "0078895770025"),
        ("00418683", "0078895770025"),
        ("00418683", "4710199010372"),
        ("418683", "4710199010372"),
    ]
    assert [str(e["time"]) for e in events] == [
        *("2000-11-01 00:00:00", "2000-12-25 00:00:00"),
        *("2001-02-03 00:00:00", "2001-02-03 00:00:00"),
    ]
    assert [(e["quantity"], e["price"], e["cost"]) for e in events] == [
        (2, 15.0, 12.0),
        (1, 46.0, 48.0),
        (3, 20 / 3, 10 / 3),
        (9999, 444000 / 9999, 444000 / 9999),
    ]
    catalogue = Catalogue(tmp_path / "s", log.schema)
    assert catalogue.read("user").to_pylist() == [
        {"customer_id": "00418683", "age_group": "45-49", "area": "115"},
        {"customer_id": "418683", "age_group": None, "area": "115"},
    ]
    assert catalogue.read("item").to_pylist() == [
        {"product_id": "0078895770025", "subclass": "110411"},
        {"product_id": "4710199010372", "subclass": "110411"},  # of equals the first
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD[0].replace("00418683", ""), "'CUSTOMER_ID': is missing"),
        (GOOD[0].replace("0078895770025", " "), "'PRODUCT_ID': ' ' is missing"),
        (GOOD[0].replace("11/1/2000", "2000-11-01"), "'2000-11-01' is not a date as month/day"),
        (GOOD[0].replace("11/1/2000", "13/1/2000"), "'time': '2000-13-01' is not a time"),
        (GOOD[0].replace(",2,24", ",0,24"), "'AMOUNT': '0' is not a whole number of pieces"),
        (GOOD[0].replace(",24,", ",-24,"), "'ASSET': '-24' is not a cost of 0 or more"),
        (GOOD[0].replace(",30", ",x"), "'SALES_PRICE': 'x' is not a price of 0 or more"),
    ],
)
def test_lines_that_are_no_events_are_named(tmp_path: Path, line: str, message: str) -> None:
    source = TaFeng(path=write(tmp_path / "r", [GOOD[0], line]))
    with pytest.raises(DataError, match=rf"{TABLE}:3.*{message}") as caught:
        ingest(source, tmp_path / "s")
    assert "\n" not in str(caught.value) and "--quarantine" in str(caught.value)
    report = ingest(source, tmp_path / "s", quarantine=True)
    assert (report.events.stored, report.events.quarantined) == (1, 1)


def test_where_no_table_is_there_the_message_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"give {TABLE} or {ARCHIVE}, or the folder"):
        ingest(TaFeng(path=tmp_path), tmp_path / "s")


def test_the_real_file(data_root: Callable[[str], Path], tmp_path: Path) -> None:
    report = ingest(TaFeng(path=data_root("ta-feng")), tmp_path / "s")
    assert (report.events.read, report.events.stored) == (817_741, 817_741)
    assert (report.users.stored, report.items.stored) == (32_266, 23_812)
    log = EventLog.open(tmp_path / "s")
    subclasses = Catalogue(log.folder, log.schema).read("item")["subclass"]
    # 2,012 in the file, two of which are nowhere a product's most frequent one
    assert pc.count_distinct(subclasses).as_py() == 2_010
