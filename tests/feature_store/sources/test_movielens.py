"""MovieLens: each published layout, in hand-written rows that hold its nastiness."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter, ValidationError

from feature_store.catalogue import Catalogue
from feature_store.errors import DataError
from feature_store.event_log import EventLog
from feature_store.ingest import ingest
from feature_store.sources import SourceConfig, movielens_download
from feature_store.sources.movielens import GENRES_100K, MovieLens


def flags(*genres: str) -> str:
    return "|".join("1" if name in genres else "0" for name in GENRES_100K)


LAYOUTS: dict[str, dict[str, bytes]] = {
    "100k": {
        "u.data": b"196\t242\t3\t881250949\n186\t302\t5\t891717742\n",
        "u.item": (
            f"242|L\xe9on (1994)|01-Jan-1994||http://x|{flags('Crime', 'Drama')}\n"
            f"267|unknown||||{flags('unknown')}\n302|Odd (1995) |x||y|{flags()}\n"
        ).encode("latin-1"),
        "u.user": b"196|49|M|writer|55105\n186|7|F|none|T8H1N\n",
    },
    "1m": {
        "ratings.dat": b"1::1193::5::978300760\n1::661::3::978302109\n",
        "movies.dat": (
            "1193::Mis\xe9rables, Les (1995)::Drama|Musical\n661::Star Wars: A: B (1977)::Sci-Fi\n"
        ).encode("latin-1"),
        "users.dat": b"1::F::1::10::48067\n",
    },
    "10m": {
        "ratings.dat": b"1::122::4.5::838985046\n",
        "movies.dat": "122::Amélie (2001)::(no genres listed)\n".encode(),
        "tags.dat": b"15::4973::excellent!::1215184630\n",
    },
    "csv": {
        "ratings.csv": b"userId,movieId,rating,timestamp\r\n1,11,3.5,1112486027\r\n",
        "movies.csv": (
            "movieId,title,genres\r\n"
            '11,"American President, The (1995)",Comedy|Drama\r\n'
            '12,"""Great"" Performances (1971-1974)",(no genres listed)\r\n'
            "13,Amélie (2001),Romance\r\n14,Babylon 5,Sci-Fi\r\n15,Return (1994) (V),Drama\r\n"
        ).encode(),
    },
}


def write(folder: Path, layout: str, **changes: bytes) -> Path:
    folder.mkdir(parents=True)
    for name, content in {**LAYOUTS[layout], **changes}.items():
        (folder / name).write_bytes(content)
    return folder


def store(source: MovieLens, folder: Path) -> tuple[list[dict], list[dict], list[dict]]:
    ingest(source, folder)
    log = EventLog.open(folder)
    catalogue = Catalogue(folder, log.schema)
    events = pq.read_table(log.files[0]).sort_by("position").to_pylist()
    return events, catalogue.read("item").to_pylist(), catalogue.read("user").to_pylist()


def test_100k(tmp_path: Path) -> None:
    events, items, users = store(MovieLens(path=write(tmp_path / "m", "100k")), tmp_path / "s")
    assert [(e["user_id"], e["item_id"], e["rating"]) for e in events] == [
        (196, 242, 3.0),
        (186, 302, 5.0),
    ]
    assert [(i["title"], i["year"], i["genres"]) for i in items] == [
        ("L\xe9on (1994)", 1994, ["Crime", "Drama"]),
        ("unknown", None, ["unknown"]),
        ("Odd (1995)", 1995, []),
    ]
    assert users[1] == {
        "user_id": 186,
        "gender": "F",
        "age": 7,
        "occupation": "none",
        "zip": "T8H1N",
    }


def test_1m(tmp_path: Path) -> None:
    events, items, users = store(MovieLens(path=write(tmp_path / "m", "1m")), tmp_path / "s")
    assert f"{events[0]['time']}" == "2000-12-31 22:12:40"
    assert [(i["title"], i["year"], i["genres"]) for i in items] == [
        ("Mis\xe9rables, Les (1995)", 1995, ["Drama", "Musical"]),
        ("Star Wars: A: B (1977)", 1977, ["Sci-Fi"]),
    ]
    assert users == [
        {"user_id": 1, "gender": "F", "age": 1, "occupation": "K-12 student", "zip": "48067"}
    ]


def test_10m(tmp_path: Path) -> None:
    events, items, users = store(MovieLens(path=write(tmp_path / "m", "10m")), tmp_path / "s")
    assert events[0]["rating"] == 4.5
    assert items == [{"item_id": 122, "title": "Am\xe9lie (2001)", "year": 2001, "genres": []}]
    assert users == []


def test_csv(tmp_path: Path) -> None:
    _, items, _ = store(MovieLens(path=write(tmp_path / "m", "csv")), tmp_path / "s")
    assert [(i["title"], i["year"], i["genres"]) for i in items] == [
        ("American President, The (1995)", 1995, ["Comedy", "Drama"]),
        ('"Great" Performances (1971-1974)', 1971, []),
        ("Am\xe9lie (2001)", 2001, ["Romance"]),
        ("Babylon 5", None, ["Sci-Fi"]),
        ("Return (1994) (V)", 1994, ["Drama"]),
    ]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_the_published_zip_holds_the_same(tmp_path: Path, layout: str) -> None:
    folder = write(tmp_path / "m", layout)
    with zipfile.ZipFile(tmp_path / "m.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.iterdir():
            archive.write(path, f"ml-{layout}/{path.name}")
    of_folder = store(MovieLens(path=folder), tmp_path / "a")
    assert store(MovieLens(path=tmp_path / "m.zip"), tmp_path / "b") == of_folder


@pytest.mark.parametrize(
    ("layout", "file", "content", "message"),
    [
        ("1m", "ratings.dat", b"1::2::x::5\n", r"ratings\.dat:1, column 'rating': 'x' is not"),
        ("1m", "ratings.dat", b"1::2::3\n", r"ratings\.dat:1: 3 columns instead of 4"),
        ("1m", "ratings.dat", b"1::2::3::4\n1::2::3::5", r"ratings\.dat:2: the file ends inside"),
        ("1m", "ratings.dat", b"", r"ratings\.dat: the file is empty"),
        ("1m", "ratings.dat", b"1::2::3::4\n1::2::3::5\n", r"ratings\.dat:2, .*'1, 2' repeats"),
        ("1m", "users.dat", b"1::F::1::21::48067\n", r"users\.dat:1, .*'21' is not a code from 0"),
        (
            "100k",
            "u.item",
            b"1|A|x||y|" + b"2|" * 18 + b"0\n",
            r"u\.item:1, .*'2' is neither 0 nor 1",
        ),
        ("10m", "movies.dat", b"1::Am\xe9lie::Drama\n", r"movies\.dat:1: is not utf-8"),
        ("csv", "ratings.csv", b"user,item,rating\n1,2,3\n", r"ratings\.csv:1: no column 'userId'"),
        ("csv", "movies.csv", b'movieId,title,genres\n1,"A,B\n', r"movies\.csv:2: a quote is not"),
    ],
)
def test_what_is_broken_is_named(
    tmp_path: Path, layout: str, file: str, content: bytes, message: str
) -> None:
    folder = write(tmp_path / "m", layout, **{file: content})
    with pytest.raises(DataError, match=message) as caught:
        ingest(MovieLens(path=folder), tmp_path / "s")
    assert "\n" not in str(caught.value)


def test_another_folder_is_named_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no MovieLens: it has notes\.txt; known: u\.data"):
        ingest(MovieLens(path=tmp_path), tmp_path / "s")
    with pytest.raises(DataError, match="does not exist"):
        ingest(MovieLens(path=tmp_path / "nowhere"), tmp_path / "s")


def test_the_fingerprint_follows_the_files_and_not_the_folder(tmp_path: Path) -> None:
    first = MovieLens(path=write(tmp_path / "a", "1m")).fingerprint()
    assert MovieLens(path=write(tmp_path / "b", "1m")).fingerprint() == first
    changed = write(tmp_path / "c", "1m", **{"ratings.dat": b"1::661::3::978302109\n"})
    assert MovieLens(path=changed).fingerprint() != first


def test_options_are_checked() -> None:
    adapter: TypeAdapter = TypeAdapter(SourceConfig)
    assert adapter.validate_python({"source": "movielens", "path": "x"}) == MovieLens(path="x")
    for options in ({}, {"path": "x", "download": "ml-1m"}, {"path": "x", "pth": "y"}):
        with pytest.raises(ValidationError):
            adapter.validate_python({"source": "movielens", **options})


def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str) -> Path:
    """A publisher of one release at a file: address."""
    site = tmp_path / "site"
    folder = write(tmp_path / "m", "csv")
    site.mkdir()
    with zipfile.ZipFile(site / f"{release}.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"{release}/{path.name}")
    monkeypatch.setattr(movielens_download, "ADDRESS", site.as_uri())
    return site


def test_a_release_is_fetched_once_and_checked(tmp_path: Path, monkeypatch) -> None:
    import hashlib

    site = published(tmp_path, monkeypatch, "ml-latest-small")
    archive = site / "ml-latest-small.zip"
    digest = hashlib.md5(archive.read_bytes()).hexdigest()
    (site / "ml-latest-small.zip.md5").write_text(f"MD5 (ml-latest-small.zip) = {digest}\n")
    source = MovieLens(download="ml-latest-small", cache=tmp_path / "cache")
    events, _, _ = store(source, tmp_path / "s")
    assert len(events) == 1
    archive.unlink()  # the cache answers now
    again = MovieLens(download="ml-latest-small", cache=tmp_path / "cache")
    assert store(again, tmp_path / "t")[0] == events


def test_a_download_that_is_not_what_was_published_is_refused(tmp_path: Path, monkeypatch) -> None:
    published(tmp_path, monkeypatch, "ml-1m")
    with pytest.raises(DataError, match="came with md5"):
        ingest(MovieLens(download="ml-1m", cache=tmp_path / "cache"), tmp_path / "s")
    assert list((tmp_path / "cache").iterdir()) == []


def test_offline_the_message_says_what_to_fetch_and_where_to_put_it(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(movielens_download, "ADDRESS", (tmp_path / "gone").as_uri())
    with pytest.raises(
        DataError, match=r"gone/ml-1m\.zip .*put it at .*cache/ml-1m\.zip"
    ) as caught:
        ingest(MovieLens(download="ml-1m", cache=tmp_path / "cache"), tmp_path / "s")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "events", "users", "items", "rated"),
    [("ml-100k", 100_000, 943, 1_682, 1_682), ("ml-1m", 1_000_209, 6_040, 3_883, 3_706)],
)
def test_the_real_files(
    data_root: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    events: int,
    users: int,
    items: int,
    rated: int,
) -> None:
    report = ingest(MovieLens(path=data_root(name)), tmp_path / "store")
    assert (report.events.stored, report.users.stored, report.items.stored) == (
        events,
        users,
        items,
    )
    assert report.reasons == {} and report.events_without_item == report.events_without_user == 0
    log = EventLog.open(tmp_path / "store")
    table = pq.read_table(log.files)
    assert len(table["item_id"].unique()) == rated
    catalogue = Catalogue(tmp_path / "store", log.schema).read("item")
    assert catalogue["title"].null_count == 0
    assert catalogue["year"].null_count == (1 if name == "ml-100k" else 0)
