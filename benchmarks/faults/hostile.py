"""Small files of every source, and bytes that do not belong there."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from feature_store.conform import conform
from feature_store.sources import Source, SourceConfig

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
