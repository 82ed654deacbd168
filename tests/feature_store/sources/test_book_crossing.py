"""Book-Crossing: hand-written rows that hold the dump's nastiness, and the real files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from feature_store.catalogue import Catalogue
from feature_store.engine import Engine
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest import ingest
from feature_store.protocols import LeaveOneOut, Random
from feature_store.sources import SourceConfig
from feature_store.sources.book_crossing import BOOKS, RATINGS, USERS, BookCrossing
from feature_store.splits import make_split

RATING_HEAD = '"User-ID";"ISBN";"Book-Rating"'
BOOK_HEAD = (
    '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";'
    '"Image-URL-S";"Image-URL-M";"Image-URL-L"'
)
URLS = '"http://s";"http://m";"http://l"'
FILES = {
    RATINGS: [
        RATING_HEAD,
        '"8";"0306406152";"0"',
        '"8";"080442957X";"10"',
        '"2";"080442957x";"1"',  # the same book in small letters
        '"2";"B00009EF82";"7"',  # the code of a shop
        '"3";"0306406153";"8"',  # a wrong check digit
    ],
    USERS: [
        '"User-ID";"Location";"Age"',
        '"8";"nyc, new york, usa";NULL',
        '"2";"lisbon, \\"n/a\\",";"41"',
        '"3";"\xe5rhus, \\"n/a\\", Denmark.";"0"',
        '"4";"tehran, &#304;ran, n/a";"244"',
        '"5";"cernusco s\n, milan, italy";"5"',  # a line feed that ends no line
        '"6";"serbia &amp; montenegro";"100"',
    ],
    BOOKS: [
        BOOK_HEAD,
        f'"0306406152";"Rides with the Real \\"J. Peterman\\" &amp; Co";"J";"1998";"P";{URLS}',
        f'"080442957X";"The ""New"" L\xe9on; Roman";"B\\\\C";"0";"Wiley &amp; Sons";{URLS}',
        f'"B00009EF82";"X-Men (Level 4)\\"";Michael T";"2050";"DK";{URLS}',
    ],
}


def write(folder: Path, end: str = "\r\n", **changes: list[str] | None) -> Path:
    folder.mkdir(parents=True)
    for name, lines in {**FILES, **changes}.items():
        if lines is not None:
            text = "".join(line + end for line in lines)
            (folder / name).write_bytes(text.encode("latin-1"))
    return folder


def read(folder: Path) -> tuple[list[dict], dict[str, dict], dict[int, dict]]:
    """The stored events, the items by ISBN and the users by id."""
    log = EventLog.open(folder)
    catalogue = Catalogue(folder, log.schema)
    events = pq.read_table(log.files[0]).sort_by("position").to_pylist()
    sides = [catalogue.path(side).exists() for side in ("item", "user")]
    items = catalogue.read("item").to_pylist() if sides[0] else []
    users = catalogue.read("user").to_pylist() if sides[1] else []
    return events, {i["isbn"]: i for i in items}, {u["user_id"]: u for u in users}


def store(
    source: BookCrossing, folder: Path, **options: bool
) -> tuple[list[dict], dict[str, dict], dict[int, dict]]:
    ingest(source, folder, **options)
    return read(folder)


def test_a_zero_is_no_rating(tmp_path: Path) -> None:
    events, _, _ = store(BookCrossing(path=write(tmp_path / "b")), tmp_path / "s")
    assert [(e["user_id"], e["isbn"], e["rating"], e["feedback"]) for e in events] == [
        (8, "0306406152", None, "implicit"),
        (8, "080442957X", 10.0, "explicit"),
        (2, "080442957x", 1.0, "explicit"),
        (2, "B00009EF82", 7.0, "explicit"),
        (3, "0306406153", 8.0, "explicit"),
    ]
    assert {f"{e['time']}" for e in events} == {"1970-01-01 00:00:00"}


@pytest.mark.parametrize(
    ("chosen", "scores"),
    [
        ({"event_types": ("explicit",)}, [1, 7, 8, 10]),
        ({"event_types": ("implicit",)}, [None]),
        ({"min_label": 0}, [1, 7, 8, 10]),  # not even then is an implicit one a bad rating
        ({"min_label": 8}, [8, 10]),
    ],
)
def test_splits_choose_the_feedback(tmp_path: Path, chosen: dict, scores: list) -> None:
    ingest(BookCrossing(path=write(tmp_path / "b")), tmp_path / "s")
    engine, log = Engine(), EventLog.open(tmp_path / "s")
    events = engine.scan(log.files)
    kept = Random(**chosen).keep(events, log.schema).to_pyarrow()["rating"].to_pylist()
    assert sorted(kept, key=lambda score: score or 0) == scores


def test_splits_that_need_a_clock_are_refused(tmp_path: Path) -> None:
    ingest(BookCrossing(path=write(tmp_path / "b")), tmp_path / "s")
    with pytest.raises(DataError, match="choose protocol = 'random'"):
        make_split(Engine(), EventLog.open(tmp_path / "s"), LeaveOneOut())


def test_users_have_countries_and_possible_ages(tmp_path: Path) -> None:
    _, _, users = store(BookCrossing(path=write(tmp_path / "b")), tmp_path / "s")
    assert {user: (u["country"], u["age"]) for user, u in users.items()} == {
        8: ("usa", None),
        2: (None, 41),
        3: ("denmark", None),
        4: (None, None),
        5: ("italy", 5),
        6: ("serbia & montenegro", 100),
    }


def test_books_without_quotes_escapes_and_entities(tmp_path: Path) -> None:
    _, items, _ = store(BookCrossing(path=write(tmp_path / "b")), tmp_path / "s")
    assert [tuple(item.values()) for item in items.values()] == [
        ("0306406152", 'Rides with the Real "J. Peterman" & Co', "J", 1998, "P"),
        ("080442957X", 'The "New" L\xe9on; Roman', "B\\C", None, "Wiley & Sons"),
        ("B00009EF82", 'X-Men (Level 4)"', "Michael T", None, "DK"),
    ]


def test_readers_and_books_may_be_absent(tmp_path: Path) -> None:
    folder = write(tmp_path / "b", **{USERS: None, BOOKS: None})
    events, items, users = store(BookCrossing(path=folder), tmp_path / "s")
    assert len(events) == 5 and not items and not users
    assert {f.name for f in EventLog.open(tmp_path / "s").schema.features} == {
        "user_id",
        "isbn",
        "rating",
        "feedback",
    }


def test_the_zip_and_other_line_ends_hold_the_same(tmp_path: Path) -> None:
    lines = [line for line in FILES[USERS] if "\n" not in line]
    folder = write(tmp_path / "b", **{USERS: lines})
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"dump/{path.name}")
    of_folder = store(BookCrossing(path=folder), tmp_path / "s")
    assert store(BookCrossing(path=tmp_path / "b.zip"), tmp_path / "t") == of_folder
    plain = write(tmp_path / "c", "\n", **{USERS: lines})
    assert store(BookCrossing(path=plain), tmp_path / "u") == of_folder


def test_valid_isbns_meet_and_the_others_are_set_aside(tmp_path: Path) -> None:
    ratings = [*FILES[RATINGS], '"9";" 0-306-40615-2.";"3"', '"8";"0804-42957x";"4"', '"9";"";"4"']
    folder = write(tmp_path / "b", **{RATINGS: ratings})
    source = BookCrossing(path=folder, isbn="valid")
    with pytest.raises(DataError, match=r"Books\.csv:4, column 'isbn': 'B00009EF82' is not a val"):
        ingest(source, tmp_path / "s")
    events, items, _ = store(source, tmp_path / "s", quarantine=True)
    assert [(e["user_id"], e["isbn"]) for e in events] == [
        (8, "0306406152"),
        (8, "080442957X"),
        (2, "080442957X"),
        (9, "0306406152"),
    ]
    assert list(items) == ["0306406152", "080442957X"]
    aside = pq.read_table(tmp_path / "s" / "quarantine.parquet").to_pylist()
    found = [(row["file"].rsplit("/", 1)[-1], row["line"], row["reason"][:22]) for row in aside]
    assert found == [
        (BOOKS, 4, "is not a valid ISBN: i"),
        (RATINGS, 5, "is not a valid ISBN: i"),
        (RATINGS, 6, "is not a valid ISBN: i"),
        (RATINGS, 9, "is not a valid ISBN: i"),
        (RATINGS, 8, "repeats an earlier row"),  # user 8 rated that book under another spelling
    ]
    assert json.loads(aside[2]["raw"]) == {"user_id": "3", "isbn": "0306406153", "rating": "8"}


@settings(max_examples=20, deadline=None)
@given(st.text("0123456789", min_size=9, max_size=9))
def test_one_check_digit_of_eleven_is_right(tmp_path_factory, digits: str) -> None:
    folder = tmp_path_factory.mktemp("b")
    rows = [f'"1";"{digits}{check}";"5"' for check in "0123456789X"]
    (folder / RATINGS).write_text("\n".join([RATING_HEAD, *rows, ""]))
    chunk = next(iter(BookCrossing(path=folder, isbn="valid").read_events()))
    # ISO 2108: weights 10 to 2, and 1 for the check digit
    total = sum(weight * int(digit) for weight, digit in zip(range(10, 1, -1), digits, strict=True))
    right = "0123456789X"[-total % 11]
    assert chunk.table["isbn"].to_pylist() == [digits + right] and len(chunk.bad) == 10


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        (RATINGS, '"1";"0306406152";"11"', r"Ratings\.csv:2, .*'11' is not a rating from 0 to 10"),
        (RATINGS, '"1";"0306406152";""', r"Ratings\.csv:2, .*'' is not a rating from 0 to 10"),
        (RATINGS, '"x";"0306406152";"5"', r"Ratings\.csv:2, column 'user_id': 'x' is not an int"),
        (RATINGS, '"1";"";"5"', r"Ratings\.csv:2, column 'isbn': .*is null"),
        (RATINGS, '"1";"0306406152', r"Ratings\.csv:2: a quote is not closed"),
        (USERS, '"1";"usa";"old"', r"Users\.csv:2, column 'age': 'old' is not an integer"),
        (BOOKS, '"1";"A";"B";"1990";"P"', r"Books\.csv:2: 5 columns instead of 8"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, file: str, line: str, message: str) -> None:
    folder = write(tmp_path / "b", **{file: [FILES[file][0], line]})
    with pytest.raises(DataError, match=message) as caught:
        ingest(BookCrossing(path=folder), tmp_path / "s")
    assert "\n" not in str(caught.value) and "--quarantine" in str(caught.value)


def test_a_folder_without_ratings_is_named_with_what_it_holds(tmp_path: Path) -> None:
    folder = write(tmp_path / "b", **{RATINGS: None, BOOKS: None})
    with pytest.raises(DataError, match=r"no Book-Crossing: it has BX-Users\.csv, but no BX-Book"):
        ingest(BookCrossing(path=folder), tmp_path / "s")


def test_options_are_checked() -> None:
    adapter: TypeAdapter = TypeAdapter(SourceConfig)
    assert adapter.validate_python({"source": "book_crossing", "path": "x"}) == BookCrossing(
        path="x"
    )
    for options in ({}, {"path": "x", "isbn": "any"}, {"path": "x", "feedback": "all"}):
        with pytest.raises(ValidationError):
            adapter.validate_python({"source": "book_crossing", **options})


def test_the_fingerprint_follows_the_files_and_the_options(tmp_path: Path) -> None:
    first = BookCrossing(path=write(tmp_path / "a"))
    assert BookCrossing(path=write(tmp_path / "b")).fingerprint() == first.fingerprint()
    assert BookCrossing(path=first.path, isbn="valid").fingerprint() != first.fingerprint()
    (tmp_path / "b" / BOOKS).unlink()
    assert BookCrossing(path=tmp_path / "b").fingerprint() != first.fingerprint()


def test_the_real_files(data_root: Callable[[str], Path], tmp_path: Path) -> None:
    path = data_root("book-crossing")
    report = ingest(BookCrossing(path=path), tmp_path / "s")
    assert (report.events.stored, report.users.stored) == (174_286, 278_858)
    assert report.reasons == {} and report.events_without_user == 0
    log = EventLog.open(tmp_path / "s")
    events = pq.read_table(log.files)
    assert events["rating"].null_count == 65_204
    assert events.filter(events["rating"].is_null())["feedback"].unique().to_pylist() == [
        "implicit"
    ]
    assert len(events["user_id"].unique()) == 14_384 and len(events["isbn"].unique()) == 46_070
    users = Catalogue(tmp_path / "s", log.schema).read("user")
    assert users["age"].null_count == 110_762 + 1_248  # NULL, and impossible
    assert users["country"].to_pylist().count("usa") == 139_712

    valid = list(BookCrossing(path=path, isbn="valid").read_events())
    assert sum(chunk.table.num_rows for chunk in valid) == 174_044
    assert sum(len(chunk.bad) for chunk in valid) == 242
