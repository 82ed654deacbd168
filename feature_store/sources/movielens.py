"""MovieLens in every layout GroupLens publishes: 100K, 1M, 10M, and the CSV files since 20M."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from feature_store.errors import DataError
from feature_store.schema import Feature, Schema
from feature_store.sources.base import RawChunk, Source
from feature_store.sources.files import Files
from feature_store.sources.movielens_download import Release, default_cache, fetch
from feature_store.sources.text_table import TextFormat, read_text

# The publisher's own codes, from the README of 1M.
OCCUPATIONS = (
    "other or not specified",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)
GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
_NO_GENRES = ("", "(no genres listed)")
# "(1995)" at the end; of a series "(1995-1999)", of a video "(1995) (V)"
_YEAR = r"\((?P<year>\d{4})(?:[-\x{2013}]\d{0,4})?\)(?:\s*\([A-Z]+\))?\s*$"

_ITEM_FEATURES = (
    Feature(name="item_id", kind="id", side="item", dtype="int64"),
    Feature(name="title", kind="text", side="item"),
    Feature(name="year", kind="id", side="item", dtype="int64"),
    Feature(name="genres", kind="bag", side="item"),
)
_USER_FEATURES = (
    Feature(name="gender", kind="id", side="user"),
    Feature(name="age", kind="id", side="user", dtype="int64"),
    Feature(name="occupation", kind="id", side="user"),
    Feature(name="zip", kind="id", side="user"),
)


@dataclass(frozen=True)
class _Table:
    """One file of a layout, the names its columns get, and what else its rows need."""

    file: str
    format: TextFormat
    names: dict[str, str]
    finish: Callable[[RawChunk], RawChunk] = lambda chunk: chunk


@dataclass(frozen=True)
class _Layout:
    ratings: _Table
    movies: _Table
    users: _Table | None = None

    @property
    def tables(self) -> list[_Table]:
        return [t for t in (self.ratings, self.movies, self.users) if t is not None]


class MovieLens(Source):
    """Ratings with titles, years, genres and, in 100K and 1M, user attributes.

    Give `path`, a folder or the published zip, or `download`, the name of a release, which is
    fetched once from its publisher into `cache`. The layout follows from the files' names.
    """

    source: Literal["movielens"] = "movielens"
    path: Path | None = Field(None, description="Folder or the published zip.")
    download: Release | None = Field(
        None, description="A release to fetch from its publisher, once."
    )
    cache: Path | None = Field(
        None, description="Folder that it is fetched into; by default one in the home."
    )

    @model_validator(mode="after")
    def _check(self) -> MovieLens:
        if (self.path is None) == (self.download is None):
            raise ValueError("give either path (a folder or zip) or download (a release's name)")
        return self

    @cached_property
    def _files(self) -> Files:
        if self.download is not None:
            return Files(fetch(self.download, self.cache or default_cache()))
        assert self.path is not None
        return Files(self.path)

    @cached_property
    def _layout(self) -> _Layout:
        for layout in LAYOUTS:
            if all(table.file in self._files for table in layout.tables):
                return layout
        known = "; ".join(", ".join(t.file for t in layout.tables) for layout in LAYOUTS)
        have = ", ".join(self._files.names) or "nothing"
        raise DataError(f"{self._files.path} is no MovieLens: it has {have}; known: {known}")

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        """Users and items by number, times, ratings; at most one rating a pair."""
        return Schema(
            user="user_id",
            item="item_id",
            label="rating",
            title="title",
            unique=("user_id", "item_id"),
            features=(
                Feature(name="user_id", kind="id", side="user", dtype="int64"),
                *(_USER_FEATURES if self._layout.users else ()),
                *_ITEM_FEATURES,
                Feature(name="rating", kind="dense", side="context", dtype="float32"),
            ),
        )

    def read_events(self) -> Iterator[RawChunk]:
        """The ratings, in the file's order."""
        return self._read(self._layout.ratings)

    def read_items(self) -> Iterator[RawChunk]:
        """Titles as published, years from the titles, genres."""
        return self._read(self._layout.movies)

    def read_users(self) -> Iterator[RawChunk]:
        """Gender, age (in 1M the lowest of its bracket), occupation and zip code, if published."""
        if self._layout.users is not None:
            yield from self._read(self._layout.users)

    def fingerprint(self) -> str:
        """From the files; from the release's name when it is a download."""
        if self.download is not None:  # a cleared cache must not make a store out of date
            return f"{self.source}:{self.download}"
        identity = self._files.identity([table.file for table in self._layout.tables])
        return self._digest(identity, without=frozenset({"path", "cache"}))

    @property
    def total_bytes(self) -> int:
        """Bytes of the ratings."""
        return self._files.size(self._layout.ratings.file)

    def _read(self, table: _Table) -> Iterator[RawChunk]:
        with self._files.open(table.file) as stream:
            for chunk in read_text(stream, self._files.label(table.file), table.format):
                have = [name for name in table.names if name in chunk.table.column_names]
                columns = chunk.table.select(have)
                renamed = columns.rename_columns([table.names[name] for name in have])
                yield table.finish(chunk.with_table(renamed))


def _with_year_and_genres(chunk: RawChunk) -> RawChunk:
    """Genres are published as `Action|Comedy`."""
    texts = chunk.table["genres"].combine_chunks()
    none = pc.is_in(texts, pa.array(_NO_GENRES))
    split = pc.split_pattern(texts, "|")
    genres = pc.if_else(none, pa.scalar([], split.type), split)
    place = chunk.table.column_names.index("genres")
    return _with_year(chunk.with_table(chunk.table.set_column(place, "genres", genres)))


def _with_year(chunk: RawChunk) -> RawChunk:
    year = pc.struct_field(pc.extract_regex(chunk.table["title"], _YEAR), "year")
    return chunk.with_table(chunk.table.append_column("year", year))


def _with_flags(chunk: RawChunk) -> RawChunk:
    """Genres are published as a column of 0 and 1 for each."""
    for name in GENRES_100K:
        known = pc.is_in(chunk.table[name], pa.array(["0", "1"]))
        chunk = chunk.reject(~np.asarray(known), name, "is neither 0 nor 1")
    flags = [np.asarray(pc.equal(chunk.table[name], "1")) for name in GENRES_100K]
    rows, genres = np.nonzero(np.stack(flags, axis=1))
    offsets = np.searchsorted(rows, np.arange(chunk.table.num_rows + 1)).astype(np.int32)
    values = pa.array(GENRES_100K).take(pa.array(genres))
    lists = pa.ListArray.from_arrays(pa.array(offsets), values)
    table = chunk.table.drop_columns(list(GENRES_100K)).append_column("genres", lists)
    return _with_year(chunk.with_table(table))


def _with_occupation(chunk: RawChunk) -> RawChunk:
    """Occupations are published as codes."""
    codes = pa.array([str(code) for code in range(len(OCCUPATIONS))])
    known = pc.is_in(chunk.table["occupation"], codes)
    last = len(OCCUPATIONS) - 1
    chunk = chunk.reject(~np.asarray(known), "occupation", f"is not a code from 0 to {last}")
    place = chunk.table.column_names.index("occupation")
    code = pc.index_in(chunk.table["occupation"], codes)
    names = pa.array(OCCUPATIONS).take(code.combine_chunks())
    return chunk.with_table(chunk.table.set_column(place, "occupation", names))


def _own_names(columns: tuple[str, ...]) -> dict[str, str]:
    return {name: name for name in columns}


_RATING = ("user_id", "item_id", "rating", "time")
_MOVIE = ("item_id", "title", "genres")
_USER_1M = ("user_id", "gender", "age", "occupation", "zip")
_USER_100K = ("user_id", "age", "gender", "occupation", "zip")
_MOVIE_100K = ("item_id", "title", "release", "video_release", "url", *GENRES_100K)
_COLONS = TextFormat((), delimiter="::", encoding="latin-1")
_CSV = TextFormat((), header=True, quoted=True)


def _table(
    file: str,
    base: TextFormat,
    columns: tuple[str, ...],
    finish: Callable[[RawChunk], RawChunk] = lambda chunk: chunk,
) -> _Table:
    return _Table(file, replace(base, columns=columns), _own_names(columns), finish)


LAYOUTS = (
    _Layout(  # 100K
        _table("u.data", TextFormat((), "\t", "latin-1"), _RATING),
        _Table(
            "u.item",
            TextFormat(_MOVIE_100K, "|", "latin-1"),
            _own_names(("item_id", "title", *GENRES_100K)),
            _with_flags,
        ),
        _table("u.user", TextFormat((), "|", "latin-1"), _USER_100K),
    ),
    _Layout(  # 1M
        _table("ratings.dat", _COLONS, _RATING),
        _table("movies.dat", _COLONS, _MOVIE, _with_year_and_genres),
        _table("users.dat", _COLONS, _USER_1M, _with_occupation),
    ),
    _Layout(  # 10M
        _table("ratings.dat", replace(_COLONS, encoding="utf-8"), _RATING),
        _table("movies.dat", replace(_COLONS, encoding="utf-8"), _MOVIE, _with_year_and_genres),
    ),
    _Layout(  # 20M and later
        _Table(
            "ratings.csv",
            replace(_CSV, columns=("userId", "movieId", "rating", "timestamp")),
            {"userId": "user_id", "movieId": "item_id", "rating": "rating", "timestamp": "time"},
        ),
        _Table(
            "movies.csv",
            replace(_CSV, columns=("movieId", "title", "genres")),
            {"movieId": "item_id", "title": "title", "genres": "genres"},
            _with_year_and_genres,
        ),
    ),
)
