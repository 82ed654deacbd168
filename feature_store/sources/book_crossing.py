"""Book-Crossing: the CSV dump of ratings, readers and books by Ziegler et al. (2005)."""

from __future__ import annotations

import html
from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from feature_store.errors import DataError
from feature_store.schema import TIME_TYPE, Feature, Schema
from feature_store.sources.base import RawChunk, Source
from feature_store.sources.files import Files
from feature_store.sources.text_table import TextFormat, read_text

RATINGS, USERS, BOOKS = "BX-Book-Ratings.csv", "BX-Users.csv", "BX-Books.csv"
EXPLICIT, IMPLICIT = "explicit", "implicit"
# Names of the columns that are kept, published -> ours.
_COLUMNS = {
    RATINGS: {"User-ID": "user_id", "ISBN": "isbn", "Book-Rating": "rating"},
    USERS: {"User-ID": "user_id", "Location": "country", "Age": "age"},
    BOOKS: {
        "ISBN": "isbn",
        "Book-Title": "title",
        "Book-Author": "author",
        "Year-Of-Publication": "year",
        "Publisher": "publisher",
    },
}
_SCORES = [str(score) for score in range(11)]  # no arrays yet: pyarrow's load pandas
_AGES = (5, 100)  # readers said 0 to 244; outside these the answer is taken for no answer
_YEARS = (1, 2005)  # 0 stands for unknown; the dump is of 2004, which knew books announced
_STRAY = " \t\n\"'`.,;:!?<>()\\-_"  # around the names of countries
_NO_COUNTRY = ["", "n/a", "unknown", "none"]
_USER_FEATURES = (
    Feature(name="country", kind="id", side="user"),
    Feature(name="age", kind="id", side="user", dtype="int64"),
)
_BOOK_FEATURES = (
    Feature(name="title", kind="text", side="item"),
    Feature(name="author", kind="id", side="item"),
    Feature(name="year", kind="id", side="item", dtype="int64"),
    Feature(name="publisher", kind="id", side="item"),
)


class BookCrossing(Source):
    """Ratings of books, with readers and books where their files are there.

    Give `path`, a folder or the published zip. A published 0 says that the reader has dealt with
    the book without rating it: its `rating` is null and its `feedback` is "implicit"; the ratings
    1 to 10 are "explicit". `split.event_types = ["explicit"]` chooses, as does `split.min_label`.

    The dump knows neither times nor an order: all events stand at 1970-01-01, and only splits
    that need no clock (random, for one) are possible.

    Options:
        isbn: "as_published" takes an ISBN for what it is here, an identifier, even when it is
            malformed or the code of another shop. "valid" writes ISBNs in capitals without
            spaces and signs, so that spellings of one book meet, and counts every row whose ISBN
            then has not ten characters and the right check digit as bad.
    """

    source: Literal["book_crossing"] = "book_crossing"
    path: Path = Field(description="Folder or the published zip.")
    isbn: Literal["as_published", "valid"] = Field(
        "as_published",
        description="Take ISBNs as they are, or correct ones alone, in one spelling.",
    )

    @cached_property
    def _files(self) -> Files:
        files = Files(self.path)
        if RATINGS not in files:
            have = ", ".join(files.names) or "nothing"
            raise DataError(f"{files.path} is no Book-Crossing: it has {have}, but no {RATINGS}")
        return files

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        """Readers by number, books by ISBN; at most one rating a pair; no clock."""
        has_books = BOOKS in self._files
        return Schema(
            user="user_id",
            item="isbn",
            label="rating",
            event_type="feedback",
            title="title" if has_books else None,
            clock="none",
            unique=("user_id", "isbn"),
            features=(
                Feature(name="user_id", kind="id", side="user", dtype="int64"),
                *(_USER_FEATURES if USERS in self._files else ()),
                Feature(name="isbn", kind="id", side="item"),
                *(_BOOK_FEATURES if has_books else ()),
                Feature(name="rating", kind="dense", side="context", dtype="float32"),
                Feature(name="feedback", kind="id", side="context"),
            ),
        )

    def read_events(self) -> Iterator[RawChunk]:
        """The ratings, in the file's order."""
        for chunk in self._read(RATINGS):
            known = np.asarray(pc.is_in(chunk.table["rating"], pa.array(_SCORES)))
            chunk = self._with_isbn(chunk.reject(~known, "rating", "is not a rating from 0 to 10"))
            implicit = pc.equal(chunk.table["rating"], "0")
            table = _put(chunk.table, "rating", pc.if_else(implicit, None, chunk.table["rating"]))
            feedback = pc.if_else(implicit, IMPLICIT, EXPLICIT)
            moments = pa.repeat(pa.scalar(datetime(1970, 1, 1), TIME_TYPE), table.num_rows)
            table = table.append_column("feedback", feedback).append_column("time", moments)
            yield chunk.with_table(table)

    def read_items(self) -> Iterator[RawChunk]:
        """Titles, authors, years and publishers, if published; an impossible year is null."""
        if BOOKS not in self._files:
            return
        for chunk in map(self._with_isbn, self._read(BOOKS)):
            table = chunk.table
            table = _put(table, "title", _unescape(table["title"]))
            for name in ("author", "publisher"):  # some end in a quote that closes nothing
                table = _put(table, name, pc.utf8_trim(_unescape(table[name]), ' "'))
            table = _put(table, "year", _within(table["year"], *_YEARS))
            yield chunk.with_table(table)

    def read_users(self) -> Iterator[RawChunk]:
        """Countries and ages, if published; an impossible age is null."""
        if USERS not in self._files:
            return
        for chunk in self._read(USERS):
            table = _put(chunk.table, "country", _country(chunk.table["country"]))
            yield chunk.with_table(_put(table, "age", _within(table["age"], *_AGES)))

    def fingerprint(self) -> str:
        """From the files."""
        names = [name for name in _COLUMNS if name in self._files]
        return self._digest(self._files.identity(names), without=frozenset({"path"}))

    @property
    def total_bytes(self) -> int:
        """Bytes of the ratings."""
        return self._files.size(RATINGS)

    def _read(self, file: str) -> Iterator[RawChunk]:
        names = _COLUMNS[file]
        with self._files.open(file) as stream:
            crlf = stream.read(1 << 16).split(b"\n", 1)[0].endswith(b"\r")
        layout = TextFormat(
            tuple(names),
            delimiter=";",
            encoding="latin-1",
            header=True,
            quoted=True,
            escape="\\",
            # one reader's town holds a lone line feed
            line_end="\r\n" if crlf else "\n",
        )
        with self._files.open(file) as stream:
            for chunk in read_text(stream, self._files.label(file), layout):
                table = chunk.table.select(list(names))
                yield chunk.with_table(table.rename_columns(list(names.values())))

    def _with_isbn(self, chunk: RawChunk) -> RawChunk:
        """The chunk with its ISBNs as the option says."""
        if self.isbn == "as_published":
            return chunk
        plain = pc.replace_substring_regex(pc.utf8_upper(chunk.table["isbn"]), r"[^0-9A-Z]", "")
        valid = _valid_isbn(plain)
        kept = plain.filter(pa.array(valid))
        reason = 'is not a valid ISBN: isbn = "as_published" keeps it as it is'
        chunk = chunk.reject(~valid, "isbn", reason)
        return chunk.with_table(_put(chunk.table, "isbn", kept))


def _put(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    """The table with another column of that name at its place."""
    return table.set_column(table.column_names.index(name), name, values)


def _unescape(texts: pa.ChunkedArray) -> pa.Array:
    """Texts without HTML entities."""
    return pa.array([html.unescape(text) for text in texts.to_pylist()], pa.string())


def _within(numbers: pa.ChunkedArray, least: int, most: int) -> pa.ChunkedArray:
    """Whole numbers from `least` to `most`; others are null, and what is no number stays."""
    whole = pc.match_substring_regex(numbers, r"^-?\d{1,9}$")
    value = pc.if_else(whole, numbers, None).cast(pa.int64())
    outside = pc.or_(pc.less(value, least), pc.greater(value, most))
    return pc.if_else(pc.fill_null(outside, False), None, numbers)


def _country(locations: pa.ChunkedArray) -> pa.ChunkedArray:
    """The last part of `town, state, country` as readers typed it; null where there is none."""
    last = pc.replace_substring_regex(_unescape(locations), r"(?s)^.*,", "")
    country = pc.utf8_lower(pc.utf8_trim(last, _STRAY))
    return pc.if_else(pc.is_in(country, pa.array(_NO_COUNTRY)), None, country)


def _valid_isbn(texts: pa.ChunkedArray) -> np.ndarray:
    """Which of the texts [rows] are ISBNs of ten characters whose check digit is right.

    Ten times the first digit, nine times the second, ... once the last, where X is ten, add up
    to a multiple of eleven (ISO 2108:1992).
    """
    shaped = np.asarray(pc.match_substring_regex(texts, r"^\d{9}[\dX]$"))
    codes = np.array(texts.filter(pa.array(shaped)).to_pylist(), dtype="S10")
    digits = codes.view(np.uint8).reshape(-1, 10).astype(np.int64) - ord("0")
    digits[digits == ord("X") - ord("0")] = 10
    valid = shaped.copy()
    valid[shaped] = digits @ np.arange(10, 0, -1) % 11 == 0
    return valid
