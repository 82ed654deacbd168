"""Whatever stands in the files of any source: rows, bad rows, or an error of one line, and nothing
else. `HYPOTHESIS_PROFILE=explore` looks further."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from feature_store.conform import conform
from feature_store.errors import DataError
from feature_store.sources import SOURCES, Source, SourceConfig

GENRES = b"|".join([b"0"] * 19)
FILES: dict[str, dict[str, bytes]] = {
    "amazon": {
        "reviews_Beauty_5.json": b'{"reviewerID": "A", "asin": "B", "overall": 5.0, '
        b'"unixReviewTime": 1252800000}\n{\'reviewerID\': "C", "asin": "B", "overall": 4.0, '
        b'"unixReviewTime": 1252800001}\n',
        "meta_Beauty.json": b"{'asin': 'B', 'title': 'T', 'price': 2.5, 'categories': [['x']]}\n",
    },
    "amazon_electronics": {
        name: b"label,user_id,item_id,cate_id,item_history,cate_history\n"
        b"1,7,30,3,10^20,1^2\n0,7,99,4,10^20,1^2\n"
        for name in ("train.csv", "test.csv")
    },
    "book_crossing": {
        "BX-Book-Ratings.csv": b'"User-ID";"ISBN";"Book-Rating"\r\n"8";"0306406152";"5"\r\n',
        "BX-Users.csv": b'"User-ID";"Location";"Age"\r\n"8";"nyc, new york, usa";NULL\r\n',
        "BX-Books.csv": b'"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";'
        b'"Image-URL-S";"Image-URL-M";"Image-URL-L"\r\n'
        b'"0306406152";"Rides &amp; \\"J\\"";"J";"1998";"P";"s";"m";"l"\r\n',
    },
    "edge_list": {"train.txt": b"0 7\n1 9\n2 8\n", "test.txt": b"1 7\n0 5\n"},
    "movielens": {
        "u.data": b"196\t242\t3\t881250949\n186\t302\t5\t891717742\n",
        "u.item": b"242|L\xe9on (1994)|01-Jan-1994||x|" + GENRES + b"\n",
        "u.user": b"196|49|M|writer|55105\n",
    },
    "online_retail": {
        "OnlineRetail.csv": b"InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,"
        b"CustomerID,Country\n536365,85123A,HEART,6,2010-12-01 08:26:00,2.55,17850.0,France\n"
        b'C536369,22423,"A ""B""",-8,2010-12-01 09:04:00,0.001,13047,Malta\n',
    },
    "parquet": {"log.csv": b'user,item,time,price\n1,"a,b",2024-01-01,2.5\n2,c,86400,\n'},
    "ta_feng": {
        "ta_feng_all_months_merged.csv": b"TRANSACTION_DT,CUSTOMER_ID,AGE_GROUP,PIN_CODE,"
        b"PRODUCT_SUBCLASS,PRODUCT_ID,AMOUNT,ASSET,SALES_PRICE\r\n"
        b'"11/1/2000","00418683","45-49","115","110411","0078895770025","2","24","30"\r\n'
    },
    "trivago": {
        "train.csv": b"user_id,session_id,timestamp,step,action_type,reference,platform,city,"
        b"device,current_filters,impressions,prices\n"
        b'U,s,1541599523,1,clickout item,9,FR,"M, F",tablet,Sauna,7|8|9,71|107|119\n'
    },
}
OPTIONS = {"parquet": {"columns": {"user": "user", "item": "item", "time": "time"}}}
HOSTILE = [
    *(b"\0", b'"', b"'", b"\\", b"\r", b"\n", b",", b"|", b"::", b"\xff\xfe", b"\xef\xbb\xbf"),
    *(b"=1+1", b"<script>", b"../../x", b"nan", b"-inf", b"1e999", b"-0", b"2024-13-45"),
    *(b"9" * 400, b"[" * 3000, b"{" * 3000, b"(" * 300, b"9223372036854775808", b"\xf0\x9f"),
    *(b"", b" ", b"null", b"[]", b'{"a": [{}]}', b"__import__('os')", b"{'a': 1e5}", b"-" * 99),
]


def source_of(name: str, folder: Path) -> Source:
    """A source over the files in a folder."""
    path = folder / "log.csv" if name == "parquet" else folder
    config = {"source": name, "path": str(path), **OPTIONS.get(name, {})}
    source: Source = TypeAdapter(SourceConfig).validate_python(config)
    return source


def read(name: str, folder: Path) -> tuple[int, int]:
    """How many rows and bad rows it holds, as ingest reads them."""
    source = source_of(name, folder)
    schema, rows, bad = source.schema, 0, 0
    sides = [
        (source.read_users(), schema.side_schema("user")),
        (source.read_items(), schema.side_schema("item")),
        (source.read_events(), schema.events_schema()),
    ]
    for chunks, wanted in sides:
        for chunk in chunks:
            checked = conform(chunk.table, wanted)
            rows += checked.table.num_rows
            bad += len(chunk.bad) + len({problem.row for problem in checked.problems})
    return rows, bad


def test_every_source_is_among_them_and_reads_what_is_fine(tmp_path: Path) -> None:
    assert FILES.keys() == SOURCES.keys() - {"fractal", "synthetic"}  # they read no text
    for name, files in FILES.items():
        folder = tmp_path / name
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        rows, bad = read(name, folder)
        assert rows >= 1 and bad == 0, name


@pytest.mark.parametrize("name", sorted(FILES))
@given(data=st.data())
@settings(max_examples=15)
def test_whatever_stands_there_is_read_or_told_in_a_line(name: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        for file, content in FILES[name].items():
            for _ in range(data.draw(st.integers(0, 2))):
                begin = data.draw(st.integers(0, len(content)))
                end = begin + data.draw(st.sampled_from([0, 0, 1, 3, 10_000]))
                content = content[:begin] + data.draw(st.sampled_from(HOSTILE)) + content[end:]
            (folder / file).write_bytes(content)
        try:
            read(name, folder)
        except DataError as error:
            assert "\n" not in str(error)


def test_names_in_archives_lead_nowhere(tmp_path: Path) -> None:
    """Members are read where they are, and never written."""
    archive = tmp_path / "raw" / "edges.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as packed:
        for file, content in FILES["edge_list"].items():
            packed.writestr(f"../../{file}", content)
        packed.writestr("/etc/train.txt", b"6 6\n")
    source = TypeAdapter(SourceConfig).validate_python({"source": "edge_list", "path": archive})
    assert sum(chunk.num_rows for chunk in source.read_events()) == 1  # what `..` holds is no data
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["edges.zip", "raw"]
