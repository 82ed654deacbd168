"""Amazon: both layouts and all releases, in hand-written rows that hold their nastiness."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest import IngestReport, ingest
from feature_store.sources import SourceConfig
from feature_store.sources.amazon import Amazon


def lines(*records: dict) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def review_2014(user: str, asin: str, overall: float, time: int) -> dict:
    return {
        "reviewerID": user,
        "asin": asin,
        "reviewerName": "J. McDonald",
        "helpful": [2, 3],
        "reviewText": 'He said "yes", {and} more',
        "overall": overall,
        "summary": "Heavenly",
        "unixReviewTime": time,
        "reviewTime": "09 13, 2009",
    }


def review_2018(user: str, asin: str, overall: float, time: int) -> dict:
    row = review_2014(user, asin, overall, time)
    return {"vote": "1,234", "verified": True, "style": {"Color:": " Red"}, "image": [], **row}


def review_2023(user: str, asin: str, parent: str, rating: float, time: int) -> dict:
    return {
        "rating": rating,
        "title": "Such a scent",
        "text": "Nice<br />",
        "images": [],
        "asin": asin,
        "parent_asin": parent,
        "user_id": user,
        "timestamp": time,
        "helpful_vote": 0,
        "verified_purchase": True,
    }


PRODUCTS_2014 = b"""\
{'asin': 'A1', 'title': 'Girls\\' Tutu &amp;  Zebra', 'price': 3.17, 'brand': 'Coxlures', \
'related': {'also_bought': ['A2']}, 'categories': [['Sports', 'Dance'], ['Sports', 'Girls']]}
{'asin': 'A2', 'title': "Bob's \\"best\\"", 'categories': [['Sports']]}
"""

FOLDERS: dict[str, dict[str, bytes]] = {
    "sequences": {
        "sequences.txt": b"1 7 8 7\n2 9\n",
        "items.jsonl": lines(
            {
                "item_id": 7,
                "asin": "B7",
                "title": " OPI  Cr&egrave;me &amp; Co ",
                "attributes": [3, 1],
            },
            {"item_id": 8, "asin": "7806397051", "title": None, "attributes": []},
        ),
    },
    "2014": {
        "reviews_Beauty_5.json.gz": gzip.compress(
            lines(review_2014("U1", "A1", 5.0, 1_252_800_000), review_2014("U2", "A2", 1.0, 86_400))
        ),
        "meta_Beauty.json.gz": gzip.compress(PRODUCTS_2014),
    },
    "2018": {
        "All_Beauty_5.json": lines(review_2018("U1", "A1", 4.0, 1_424_304_000)),
        "meta_All_Beauty.json": lines(
            {"asin": "A1", "title": "X", "brand": "", "price": "$1,299.99", "category": []},
            {
                "asin": "A2",
                "title": "",
                "brand": "Loud 'N Clear&trade;",
                "price": "$5.00 - $10.00",
                "category": ["Clothing, Shoes &amp; Jewelry", "Women", "Women"],
            },
            {"asin": "A3", "title": "Y", "price": ".a-box-inner{background-color:#fff}"},
        ),
    },
    "2023": {
        "All_Beauty.jsonl": lines(review_2023("AG", "B00Y", "B01C", 5.0, 1_588_687_728_923)),
        "meta_All_Beauty.jsonl": lines(
            {
                "main_category": "All Beauty",
                "title": "Scent",
                "price": None,
                "store": "Howard",
                "categories": ["Beauty", "Skin Care"],
                "parent_asin": "B01C",
            },
            {"title": "Z", "price": "from 14.99", "store": None, "parent_asin": "B02"},
            {"title": "Z", "price": 12, "categories": None, "parent_asin": "B03"},
        ),
    },
}


def write(folder: Path, layout: str, **changes: bytes) -> Path:
    folder.mkdir(parents=True)
    for name, content in {**FOLDERS[layout], **changes}.items():
        (folder / name).write_bytes(content)
    return folder


def store(source: Amazon, folder: Path, **options) -> tuple[list[tuple], list[dict], IngestReport]:
    """Events as (user, item, time, rating if any), items, and the report."""
    report = ingest(source, folder, **options)
    log = EventLog.open(folder)
    table = pq.read_table(log.files).sort_by("position")
    names = [n for n in ("user_id", "item_id", "time", "rating") if n in table.column_names]
    columns = [table[n].cast("string") if n == "time" else table[n] for n in names]
    events = list(zip(*(column.to_pylist() for column in columns), strict=True))
    return events, Catalogue(folder, log.schema).read("item").to_pylist(), report


def test_sequences(tmp_path: Path) -> None:
    source = Amazon(path=write(tmp_path / "a", "sequences"))
    events, items, _ = store(source, tmp_path / "s")
    assert events == [
        (1, 7, "1970-01-01 00:00:01.000000"),
        (1, 8, "1970-01-01 00:00:02.000000"),
        (1, 7, "1970-01-01 00:00:03.000000"),
        (2, 9, "1970-01-01 00:00:01.000000"),
    ]
    assert items == [
        {"item_id": 7, "asin": "B7", "title": "OPI Cr\xe8me & Co", "attributes": [3, 1]},
        {"item_id": 8, "asin": "7806397051", "title": None, "attributes": []},
    ]
    assert source.schema.clock == "order" and source.schema.title == "title"


def test_2014(tmp_path: Path) -> None:
    source = Amazon(path=write(tmp_path / "a", "2014"))
    events, items, _ = store(source, tmp_path / "s")
    assert events == [
        ("U1", "A1", "2009-09-13 00:00:00.000000", 5.0),
        ("U2", "A2", "1970-01-02 00:00:00.000000", 1.0),
    ]
    assert items == [
        {
            "item_id": "A1",
            "title": "Girls' Tutu & Zebra",
            "brand": "Coxlures",
            "category": ["Sports", "Dance", "Girls"],
            "price": pytest.approx(3.17),
        },
        {
            "item_id": "A2",
            "title": 'Bob\'s "best"',
            "brand": None,
            "category": ["Sports"],
            "price": None,
        },
    ]
    roles = source.schema
    assert (roles.clock, roles.label, roles.price) == ("time", "rating", "price")


def test_2018(tmp_path: Path) -> None:
    events, items, _ = store(Amazon(path=write(tmp_path / "a", "2018")), tmp_path / "s")
    assert events == [("U1", "A1", "2015-02-19 00:00:00.000000", 4.0)]
    assert [(i["title"], i["brand"], i["category"], i["price"]) for i in items] == [
        ("X", None, [], pytest.approx(1299.99)),
        (None, "Loud 'N Clear\u2122", ["Clothing, Shoes & Jewelry", "Women"], None),
        ("Y", None, [], None),
    ]


def test_2023(tmp_path: Path) -> None:
    events, items, _ = store(Amazon(path=write(tmp_path / "a", "2023")), tmp_path / "s")
    assert events == [("AG", "B01C", "2020-05-05 14:08:48.923000", 5.0)]
    assert [(i["item_id"], i["brand"], i["category"], i["price"]) for i in items] == [
        ("B01C", "Howard", ["Beauty", "Skin Care"], None),
        ("B02", None, [], None),
        ("B03", None, [], 12.0),
    ]


@pytest.mark.parametrize(
    ("price", "expected"),
    [
        ("$12.99", 12.99),
        (" $ 1,234,567.5 ", 1_234_567.5),
        ("7", 7.0),
        (0, 0.0),
        (-1, None),
        (True, None),
        ("", None),
        ("$5 - $9", None),
        ("12,99", None),
        ("from 3.00", None),
        (["$1"], None),
        (float("nan"), None),
        ("9" * 400, None),
        (10**400, None),
    ],
)
def test_prices(tmp_path: Path, price: object, expected: float | None) -> None:
    products = lines({"asin": "A1", "price": price})
    folder = write(tmp_path / "a", "2018", **{"meta_All_Beauty.json": products})
    _, items, _ = store(Amazon(path=folder), tmp_path / "s")
    assert items[0]["price"] == (None if expected is None else pytest.approx(expected))


def test_reviews_alone_have_no_items(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", "2018")
    (folder / "meta_All_Beauty.json").unlink()
    source = Amazon(path=folder)
    events, items, _ = store(source, tmp_path / "s")
    assert len(events) == 1 and items == []
    assert source.schema.price is source.schema.title is None


def test_a_zip_holds_the_same(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", "sequences")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"beauty/{path.name}")
    of_folder = store(Amazon(path=folder), tmp_path / "s")[:2]
    assert store(Amazon(path=tmp_path / "a.zip"), tmp_path / "t")[:2] == of_folder


GOOD = review_2018("U1", "A1", 4.0, 1_424_304_000)


def without(name: str) -> dict:
    return {key: value for key, value in GOOD.items() if key != name}


@pytest.mark.parametrize(
    ("layout", "file", "content", "message"),
    [
        ("sequences", "sequences.txt", b"1 7\n2 x\n", r"sequences\.txt:2, column 'item_id': 'x'"),
        ("sequences", "sequences.txt", b"1 7\n1 8\n", r"sequences\.txt:2, .*repeats an earlier"),
        ("sequences", "sequences.txt", b"", r"sequences\.txt: the file is empty"),
        (
            "sequences",
            "items.jsonl",
            b'{"item_id": "7"}\n',
            r"items\.jsonl:1, column 'item_id': '7'",
        ),
        (
            "sequences",
            "items.jsonl",
            b'{"asin": "7"}\n',
            r"items\.jsonl:1, column 'item_id': is ab",
        ),
        (
            "sequences",
            "items.jsonl",
            b'{"item_id": 7}\n{"item_id": 7}\n',
            r"items\.jsonl:2, column 'item_id': '7' repeats",
        ),
        (
            "2018",
            "All_Beauty_5.json",
            lines(GOOD) + b'{"overall": 5.0, "revie',
            r'All_Beauty_5\.json:2: is not a JSON object: \'{"overall',
        ),
        (
            "2018",
            "All_Beauty_5.json",
            lines(without("reviewerID")),
            r"json:1, column 'reviewerID or user_id': is absent",
        ),
        ("2018", "All_Beauty_5.json", lines(without("overall")), r"'overall or rating': is absent"),
        ("2018", "All_Beauty_5.json", lines(without("unixReviewTime")), "column 'time': is null"),
        ("2018", "All_Beauty_5.json", lines({**GOOD, "overall": "5"}), "'overall': '5' should be"),
        ("2018", "All_Beauty_5.json", lines({**GOOD, "overall": 10**400}), "'overall': '1000.*"),
        ("2018", "All_Beauty_5.json", lines({**GOOD, "unixReviewTime": -1}), "'-1' should be gr"),
        ("2018", "All_Beauty_5.json", lines({**GOOD, "asin": None}), "'asin': 'None' should be"),
        ("2018", "All_Beauty_5.json", lines(GOOD, GOOD), r"json:2, .*'U1, A1, 2015.*repeats"),
        ("2018", "meta_All_Beauty.json", lines({"asin": "A", "category": [3]}), "'category': '3'"),
        ("2014", "reviews_Beauty_5.json.gz", gzip.compress(lines(GOOD))[:-9], "cannot be read"),
    ],
)
def test_what_is_broken_is_named(
    tmp_path: Path, layout: str, file: str, content: bytes, message: str
) -> None:
    folder = write(tmp_path / "a", layout, **{file: content})
    with pytest.raises(DataError, match=message) as caught:
        ingest(Amazon(path=folder), tmp_path / "s")
    assert "\n" not in str(caught.value)


def test_copies_and_broken_lines_are_set_aside_and_later_reviews_stay(tmp_path: Path) -> None:
    later = {**GOOD, "unixReviewTime": 1_424_304_001}
    content = lines(GOOD) + b"{broken\n\n" + lines(GOOD, later)
    folder = write(tmp_path / "a", "2018", **{"All_Beauty_5.json": content})
    events, _, report = store(Amazon(path=folder), tmp_path / "s", quarantine=True)
    assert len(events) == 2
    assert report.reasons == {"is not a JSON object": 1, "repeats an earlier row": 1}
    aside = pq.read_table(tmp_path / "s" / "quarantine.parquet").to_pylist()
    assert sorted((row["line"], row["column"]) for row in aside) == [
        (2, ""),
        (4, "user_id, item_id, time"),
    ]


def test_sequences_need_no_titles(tmp_path: Path) -> None:
    (tmp_path / "sequences.txt").write_text("1 7 8\n")
    report = ingest(Amazon(path=tmp_path), tmp_path / "s")
    log = EventLog.open(tmp_path / "s")
    assert (report.events.stored, report.items.stored, log.schema.title) == (2, 0, None)


def test_another_folder_is_named_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"no Amazon data: it has items\.jsonl; known: sequ"):
        ingest(Amazon(path=tmp_path), tmp_path / "s")
    folder = write(tmp_path / "a", "2018", **{"Beauty.json": b"{}\n"})
    with pytest.raises(DataError, match=r"it has All_Beauty_5\.json, Beauty\.json, meta_All"):
        ingest(Amazon(path=folder), tmp_path / "s")


@pytest.mark.parametrize(
    ("layout", "file"), [("sequences", "items.jsonl"), ("2018", "meta_All_Beauty.json")]
)
def test_the_fingerprint_follows_the_files_and_not_the_folder(
    tmp_path: Path, layout: str, file: str
) -> None:
    first = Amazon(path=write(tmp_path / "a", layout)).fingerprint()
    assert Amazon(path=write(tmp_path / "b", layout)).fingerprint() == first
    changed = write(tmp_path / "c", layout, **{file: lines({"item_id": 7, "asin": "A1"})})
    assert Amazon(path=changed).fingerprint() != first


def test_the_registry_knows_it() -> None:
    adapter: TypeAdapter = TypeAdapter(SourceConfig)
    assert adapter.validate_python({"source": "amazon", "path": "x"}) == Amazon(path=Path("x"))


def test_the_real_files(data_root: Callable[[str], Path], tmp_path: Path) -> None:
    report = ingest(Amazon(path=data_root("amazon-beauty")), tmp_path / "s")
    assert (report.events.stored, report.items.stored) == (198_502, 12_101)
    assert report.reasons == {} and report.events_without_item == 0
    log = EventLog.open(tmp_path / "s")
    assert len(pq.read_table(log.files)["user_id"].unique()) == 22_363
    titles = Catalogue(tmp_path / "s", log.schema).read("item")["title"].drop_null()
    assert len(titles) == 12_094
    untidy = pc.match_substring_regex(titles, r"^\s|\s\s|\s$|&(amp|quot|egrave|eacute|ordm|#\d+);")
    assert pc.sum(untidy).as_py() == 0
