"""Ta-Feng: four months of a Taiwanese supermarket, with what its goods cost (ACM RecSys wiki)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from feature_store.errors import DataError
from feature_store.schema import Feature, Schema
from feature_store.sources.base import RawChunk, Source
from feature_store.sources.files import Files, file_identity, open_binary
from feature_store.sources.rules import Rule, most_frequent
from feature_store.sources.text_table import TextFormat, read_text

TABLE = "ta_feng_all_months_merged.csv"
ARCHIVE = "ta_feng.csv.zip"
_FORMAT = TextFormat(
    (
        *("TRANSACTION_DT", "CUSTOMER_ID", "AGE_GROUP", "PIN_CODE", "PRODUCT_SUBCLASS"),
        *("PRODUCT_ID", "AMOUNT", "ASSET", "SALES_PRICE"),
    ),
    header=True,
    quoted=True,
)
_MONEY = r"^\d+(\.\d+)?$"
_RULES = (  # the first that a line breaks names it
    Rule("CUSTOMER_ID", r"\S", "is missing: the line is no customer's event"),
    Rule("PRODUCT_ID", r"\S", "is missing: the line is of no product"),
    Rule("TRANSACTION_DT", r"^\d{1,2}/\d{1,2}/\d{4}$", "is not a date as month/day/year"),
    Rule("AMOUNT", r"^0*[1-9]\d{0,14}$", "is not a whole number of pieces, 1 or more"),
    Rule("ASSET", _MONEY, "is not a cost of 0 or more"),
    Rule("SALES_PRICE", _MONEY, "is not a price of 0 or more"),
)


class TaFeng(Source):
    """Purchases with quantity, price and cost; customers with age group and area, products with
    their subclass.

    Give `path`: the table as CSV, the zip archive of it, or the folder of either. Ids are texts
    that may begin with zeros. The table gives AMOUNT in pieces, and of the whole line what was
    paid (SALES_PRICE) and what the goods cost the shop (ASSET), in Taiwan dollars; `price` and
    `cost` are of one piece. Costs above prices are sales at a loss, and stay. Days have no time
    of day: what a customer bought on a day has one moment, midnight UTC.

    Age group and area may differ from line to line of a customer: the most frequent one counts.
    """

    source: Literal["ta_feng"] = "ta_feng"
    path: Path = Field(description="The table as CSV, the zip archive of it, or their folder.")

    @cached_property
    def _file(self) -> Path:
        path = self.path.expanduser()
        candidates = [path / name for name in (TABLE, ARCHIVE)] if path.is_dir() else [path]
        there = next((candidate for candidate in candidates if candidate.exists()), None)
        if there is None:
            raise DataError(
                f"{path}: no table is there: give {TABLE} or {ARCHIVE}, or the folder that holds it"
            )
        return there

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        """Customers and products by their texts; price, cost and quantity of every line."""
        return Schema(
            user="customer_id",
            item="product_id",
            price="price",
            cost="cost",
            quantity="quantity",
            features=(
                Feature(name="customer_id", kind="id", side="user"),
                Feature(name="age_group", kind="id", side="user"),
                Feature(name="area", kind="id", side="user"),
                Feature(name="product_id", kind="id", side="item"),
                Feature(name="subclass", kind="id", side="item"),
                Feature(name="price", kind="dense", side="context", dtype="float64"),
                Feature(name="cost", kind="dense", side="context", dtype="float64"),
                Feature(name="quantity", kind="dense", side="context", dtype="int64"),
            ),
        )

    def read_events(self) -> Iterator[RawChunk]:
        """The lines, in the file's order."""
        for chunk in self._read():
            for rule in _RULES:
                chunk = chunk.reject(rule.breaks(chunk.table), rule.column, rule.reason)
            yield chunk.with_table(_events(chunk.table))

    def read_items(self) -> Iterator[RawChunk]:
        """The products of the lines with their subclass, the most frequent one."""
        yield self._most_frequent("product_id", {"subclass": "PRODUCT_SUBCLASS"})

    def read_users(self) -> Iterator[RawChunk]:
        """The customers of the lines with age group and area, the most frequent ones."""
        yield self._most_frequent("customer_id", {"age_group": "AGE_GROUP", "area": "PIN_CODE"})

    def fingerprint(self) -> str:
        """From the file."""
        return self._digest(file_identity([self._file]), without=frozenset({"path"}))

    @property
    def total_bytes(self) -> int | None:
        """Bytes of the table."""
        return Files(self._file).size(TABLE) if self._zipped else self._file.stat().st_size

    @property
    def _zipped(self) -> bool:
        return self._file.suffix == ".zip"

    def _read(self) -> Iterator[RawChunk]:
        archive = self._file
        stream = Files(archive).open(TABLE) if self._zipped else open_binary(archive)
        with stream as lines:
            yield from read_text(lines, str(archive), _FORMAT)

    def _most_frequent(self, key: str, columns: dict[str, str]) -> RawChunk:
        """A row for each `key` with the most frequent value of each of the columns."""
        id_of = {"product_id": "PRODUCT_ID", "customer_id": "CUSTOMER_ID"}[key]
        parts = []
        for chunk in self._read():
            broken = np.any([rule.breaks(chunk.table) for rule in _RULES], axis=0)
            rows = {key: _trimmed(chunk.table[id_of])}
            rows |= {name: _known(chunk.table[column]) for name, column in columns.items()}
            rows["line"] = pa.array(chunk.lines)
            parts.append(pa.table(rows).filter(pa.array(~broken)))
        best = [most_frequent(parts, key, name) for name in columns]  # all in the order of keys
        table = best[0][0]
        for more, _ in best[1:]:
            table = table.append_column(more.column_names[1], more.column(1))
        return RawChunk(table, str(self._file), best[0][1])


def _events(table: pa.Table) -> pa.Table:
    pieces = table["AMOUNT"].cast(pa.int64())
    day = pc.replace_substring_regex(table["TRANSACTION_DT"], r"^(\d+)/(\d+)/(\d+)$", r"\3-0\1-0\2")
    return pa.table(
        {
            "customer_id": _trimmed(table["CUSTOMER_ID"]),
            "product_id": _trimmed(table["PRODUCT_ID"]),
            "time": pc.replace_substring_regex(day, r"-0(\d\d)", r"-\1"),
            "price": pc.divide(table["SALES_PRICE"].cast(pa.float64()), pieces.cast(pa.float64())),
            "cost": pc.divide(table["ASSET"].cast(pa.float64()), pieces.cast(pa.float64())),
            "quantity": pieces,
        }
    )


def _trimmed(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_trim_whitespace(texts)


def _known(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    texts = _trimmed(texts)
    return pc.if_else(pc.equal(texts, ""), None, texts)
