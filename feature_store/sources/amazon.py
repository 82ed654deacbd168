"""Amazon reviews: as sequences with item texts, or as the publisher's JSON lines."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from feature_store.errors import DataError
from feature_store.schema import Feature, Schema
from feature_store.sources.base import RawChunk, Source
from feature_store.sources.files import Files
from feature_store.sources.lines import read_lists, read_records

_SEQUENCES, _ITEMS = "sequences.txt", "items.jsonl"
_JSON = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
_METADATA = "meta_"
_LAST_SECOND = 7_258_118_400  # 2200-01-01
_LARGEST = 3.4e38  # price, so that models can read it as float32
_PRICE = re.compile(r"\$?\s*(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?")


def _tidy(text: str | None) -> str | None:
    """Publishers left HTML's entities and stray spaces in texts."""
    return None if text is None else " ".join(html.unescape(text).split())


def _price(value: Any) -> float | None:
    """A price from a number or a text such as "$1,299.00"; None for ranges and all else."""
    if isinstance(value, str):
        price = _PRICE.fullmatch(value.strip())
        value = float((price[1] + (price[2] or "")).replace(",", "")) if price else None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and 0 <= value < _LARGEST else None


def _flatten(value: Any) -> Any:
    """Categories as one list: early releases list paths, which are lists themselves."""
    if not isinstance(value, list):
        return [] if value in (None, "") else value
    return [leaf for part in value for leaf in (part if isinstance(part, list) else [part])]


def _distinct(names: list[str]) -> list[str]:
    return [name for name in dict.fromkeys(map(_tidy, names)) if name]


Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Text = Annotated[str | None, AfterValidator(_tidy)]
Price = Annotated[float | None, BeforeValidator(_price)]
Categories = Annotated[list[str], BeforeValidator(_flatten), AfterValidator(_distinct)]


def _named(*names: str, **limits: Any) -> Any:
    """A field under the names that the releases of 2014 and 2018, and of 2023, give it."""
    return Field(validation_alias=AliasChoices(*names), **limits)


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Item(_Row):
    """A line of `items.jsonl`."""

    item_id: Int64
    asin: str | None = None
    title: Text = None
    attributes: list[Int64] = []


class _Review(_Row):
    """A review of any release. Variants of a product are one item where the release says so."""

    user_id: str = _named("reviewerID", "user_id")
    item_id: str = _named("parent_asin", "asin")
    rating: float = _named("overall", "rating")
    seconds: int | None = _named("unixReviewTime", ge=0, lt=_LAST_SECOND, default=None)
    milliseconds: int | None = _named("timestamp", ge=0, lt=_LAST_SECOND * 1000, default=None)


class _Product(_Row):
    """A line of metadata of any release."""

    item_id: str = _named("parent_asin", "asin")
    title: Text = None
    brand: Text = _named("brand", "store", default=None)
    category: Categories = _named("category", "categories", default=[])
    price: Price = None


_ITEM_FEATURES = (
    Feature(name="asin", kind="text", side="item"),
    Feature(name="title", kind="text", side="item"),
    Feature(name="attributes", kind="bag", side="item", dtype="int64"),
)
_PRODUCT_FEATURES = (
    Feature(name="title", kind="text", side="item"),
    Feature(name="brand", kind="id", side="item"),
    Feature(name="category", kind="bag", side="item"),
    Feature(name="price", kind="dense", side="item", dtype="float64"),
)


def _sequence_schema(has_items: bool) -> Schema:
    return Schema(
        user="user_id",
        item="item_id",
        title="title" if has_items else None,
        clock="order",
        unique=("user_id", "time"),  # a second sequence of a user would begin at the first's times
        features=(
            Feature(name="user_id", kind="id", side="user", dtype="int64"),
            Feature(name="item_id", kind="id", side="item", dtype="int64"),
            *(_ITEM_FEATURES if has_items else ()),
        ),
    )


def _review_schema(has_products: bool) -> Schema:
    return Schema(
        user="user_id",
        item="item_id",
        label="rating",
        price="price" if has_products else None,
        title="title" if has_products else None,
        unique=("user_id", "item_id", "time"),
        features=(
            Feature(name="user_id", kind="id", side="user"),
            Feature(name="item_id", kind="id", side="item"),
            *(_PRODUCT_FEATURES if has_products else ()),
            Feature(name="rating", kind="dense", side="context", dtype="float32"),
        ),
    )


Reader = Callable[[IO[bytes], str], Iterator[RawChunk]]


def _read_sequences(stream: IO[bytes], file: str) -> Iterator[RawChunk]:
    for chunk in read_lists(stream, file):
        yield chunk.with_table(chunk.table.rename_columns({"place": "time"}))


def _read_reviews(stream: IO[bytes], file: str) -> Iterator[RawChunk]:
    for chunk in read_records(stream, file, _Review):
        table = chunk.table
        in_seconds = pc.multiply(table["seconds"].cast(pa.int64()), 1000)
        moments = pc.coalesce(table["milliseconds"].cast(pa.int64()), in_seconds)
        table = table.drop_columns(["seconds", "milliseconds"])
        yield chunk.with_table(table.append_column("time", moments.cast(pa.timestamp("ms"))))


@dataclass(frozen=True)
class _Layout:
    events: str
    read_events: Reader
    items: str | None
    read_items: Reader
    schema: Schema


class Amazon(Source):
    """What people bought and reviewed, with titles of items and more where there is more.

    `path` is a folder or zip; its files tell the layout:

    - `sequences.txt` (a user, then its items in time order) and, if there is one, `items.jsonl`
      (titles, attributes). There are no times, only an order: an item's time is its place in the
      sequence, from 1, as seconds since 1970.
    - One file of reviews (`.json` or `.jsonl`, plain or `.gz`) of the releases of 2014, 2018 or
      2023, and beside it, if there is one, the metadata `meta_*`. A review may occur once: equal
      user, item and time are a copy, while a later review of the same item is another event.
      Prices that are no single number are unknown.
    """

    source: Literal["amazon"] = "amazon"
    path: Path = Field(description="Folder or zip; the names of its files tell their layout.")

    @cached_property
    def _files(self) -> Files:
        return Files(self.path)

    @cached_property
    def _layout(self) -> _Layout:
        names = self._files.names
        if _SEQUENCES in names:
            return _Layout(
                _SEQUENCES,
                _read_sequences,
                _ITEMS if _ITEMS in names else None,
                lambda stream, file: read_records(stream, file, _Item),
                _sequence_schema(_ITEMS in names),
            )
        records = [n for n in names if n.endswith(_JSON) and n != _ITEMS and n[0] != "."]
        products = [name for name in records if name.startswith(_METADATA)]
        reviews = [name for name in records if name not in products]
        if len(reviews) != 1 or len(products) > 1:
            raise DataError(
                f"{self._files.path} is no Amazon data: it has {', '.join(names) or 'nothing'}; "
                f"known: {_SEQUENCES}, perhaps with {_ITEMS}, or one file of reviews (such as "
                "reviews_Beauty_5.json.gz or All_Beauty.jsonl) with at most one meta_*.json[l][.gz]"
            )
        return _Layout(
            reviews[0],
            _read_reviews,
            products[0] if products else None,
            lambda stream, file: read_records(stream, file, _Product),
            _review_schema(bool(products)),
        )

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        """By layout: order and attributes, or times, ratings, brands, categories and prices."""
        return self._layout.schema

    def read_events(self) -> Iterator[RawChunk]:
        """The sequences or the reviews, in the file's order."""
        yield from self._read(self._layout.events, self._layout.read_events)

    def read_items(self) -> Iterator[RawChunk]:
        """Titles without entities and stray spaces, and what else the layout knows of items."""
        if self._layout.items is not None:
            yield from self._read(self._layout.items, self._layout.read_items)

    def fingerprint(self) -> str:
        """From the files."""
        names = [name for name in (self._layout.events, self._layout.items) if name is not None]
        return self._digest(self._files.identity(names), without=frozenset({"path"}))

    @property
    def total_bytes(self) -> int | None:
        """Bytes of the events, unless they are packed."""
        name = self._layout.events
        return None if name.endswith(".gz") else self._files.size(name)

    def _read(self, name: str, read: Reader) -> Iterator[RawChunk]:
        with self._files.open(name) as stream:
            yield from read(stream, self._files.label(name))
