"""Online Retail: a year of invoices of a British gift shop, from the UCI repository (2015)."""

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
from feature_store.sources.files import file_identity, open_binary
from feature_store.sources.rules import Rule, most_frequent
from feature_store.sources.text_table import TextFormat, read_text

FILES = ("OnlineRetail.csv", "OnlineRetail.csv.gz")
PURCHASE, RETURN = "purchase", "return"
# Stock codes, in capitals, of what stands on invoices and is no product.
CHARGES = (
    "AMAZONFEE",
    "B",  # bad debt
    "BANK CHARGES",
    "C2",  # carriage
    "CRUK",  # commission to a charity
    "D",  # discount
    "DOT",  # postage of the web shop
    "M",  # entered by hand
    "POST",
    "S",  # samples
)
_FORMAT = TextFormat(
    (
        "InvoiceNo",
        "StockCode",
        "Description",
        "Quantity",
        "InvoiceDate",
        "UnitPrice",
        "CustomerID",
        "Country",
    ),
    header=True,
    quoted=True,
)
_RULES = (  # the first that a line breaks names it
    Rule("CustomerID", r"\S", "is missing: the line is no customer's event"),
    Rule("CustomerID", r"^\d+(\.0)?$", "is not a customer's number"),
    Rule("StockCode", r"\S", "is missing: the line is of no item"),
    Rule("UnitPrice", r"^\d+(\.\d+)?$", "is not a price of 0 or more"),
    Rule("Quantity", r"^-?0*[1-9]\d*$", "is not a whole number other than 0"),
)
_NO_CHARGE = Rule(
    "StockCode",
    rf"(?i)^\s*({'|'.join(CHARGES)})\s*$",
    "is a charge and no product: products_only = false keeps it",
    forbids=True,
)


class OnlineRetail(Source):
    """Purchases and returns with prices and quantities; items with titles, users with countries.

    Give `path`: the table as CSV, plain or gzipped, or the folder that holds `OnlineRetail.csv`
    or `OnlineRetail.csv.gz`.

    An event is a line of an invoice. Quantities of returns are negative, prices never; a free
    item has price 0. A line stands as often as it is published, since an invoice may list an
    item twice. Times are those of the shop's clock, taken as UTC. Stock codes are in capitals:
    those that differ in case alone name the same products.

    A quarter of the published lines has no customer and is therefore no user's event. These are
    bad rows, as are those of charges (postage, discounts, ...) and of prices below 0 (bad debt):
    ingest stops at the first, and sets them aside with `quarantine = true` or `--quarantine`.

    Options:
        products_only: false keeps the lines of charges, as events of items like others.
    """

    source: Literal["online_retail"] = "online_retail"
    path: Path = Field(description="The table as CSV, plain or gzipped, or its folder.")
    products_only: bool = Field(True, description="Leave out lines of charges, such as postage.")

    @cached_property
    def _file(self) -> Path:
        path = self.path.expanduser()
        candidates = [path / name for name in FILES] if path.is_dir() else [path]
        found = next((candidate for candidate in candidates if candidate.exists()), None)
        if found is None:
            known = " or ".join(FILES)
            raise DataError(f"{path}: no table is there: give {known}, or the folder that holds it")
        if found.suffix in (".xlsx", ".zip"):
            raise DataError(f"{found} is no CSV: save the sheet in it as {FILES[0]} and give that")
        return found

    @property
    def schema(self) -> Schema:  # type: ignore[override]
        """Customers by number, items by stock code; price and quantity of every line."""
        return Schema(
            user="customer_id",
            item="stock_code",
            price="unit_price",
            quantity="quantity",
            event_type="event_type",
            title="title",
            features=(
                Feature(name="customer_id", kind="id", side="user", dtype="int64"),
                Feature(name="country", kind="id", side="user"),
                Feature(name="stock_code", kind="id", side="item"),
                Feature(name="title", kind="text", side="item"),
                Feature(name="unit_price", kind="dense", side="context", dtype="float64"),
                Feature(name="quantity", kind="dense", side="context", dtype="int64"),
                Feature(name="event_type", kind="id", side="context"),
            ),
        )

    def read_events(self) -> Iterator[RawChunk]:
        """The lines of the invoices, in the file's order."""
        for chunk in self._read():
            for rule in self._rules:
                chunk = chunk.reject(rule.breaks(chunk.table), rule.column, rule.reason)
            table = _clean(chunk.table)
            returned = pc.starts_with(table["quantity"], "-")
            kind = pc.if_else(returned, RETURN, PURCHASE)
            yield chunk.with_table(table.append_column("event_type", kind))

    def read_items(self) -> Iterator[RawChunk]:
        """The items of the events; an item's title is the description most often on its lines."""
        yield self._most_frequent("stock_code", "title")

    def read_users(self) -> Iterator[RawChunk]:
        """The users of the events; a user's country is the one most often on their lines."""
        yield self._most_frequent("customer_id", "country")

    def fingerprint(self) -> str:
        """From the file."""
        return self._digest(file_identity([self._file]), without=frozenset({"path"}))

    @property
    def total_bytes(self) -> int | None:
        """Bytes of the table, when it is plain CSV."""
        return None if self._file.suffix == ".gz" else self._file.stat().st_size

    @property
    def _rules(self) -> tuple[Rule, ...]:
        return (*_RULES, _NO_CHARGE) if self.products_only else _RULES

    def _read(self) -> Iterator[RawChunk]:
        with open_binary(self._file) as stream:
            yield from read_text(stream, str(self._file), _FORMAT)

    def _most_frequent(self, key: str, column: str) -> RawChunk:
        """A row for each `key` with its most frequent `column`; of equals the first by alphabet."""
        parts = []
        for chunk in self._read():
            broken = np.any([rule.breaks(chunk.table) for rule in self._rules], axis=0)
            rows = _clean(chunk.table).select([key, column])
            rows = rows.append_column("line", pa.array(chunk.lines))
            parts.append(rows.filter(pa.array(~broken)))
        best, lines = most_frequent(parts, key, column)
        return RawChunk(best, str(self._file), lines)


def _clean(table: pa.Table) -> pa.Table:
    """The columns of events, items and users, under their own names."""
    titles = pc.replace_substring_regex(table["Description"], r"\s+", " ")
    columns = {
        "customer_id": pc.replace_substring_regex(table["CustomerID"], r"\.0$", ""),
        "stock_code": pc.utf8_upper(pc.utf8_trim_whitespace(table["StockCode"])),
        "time": table["InvoiceDate"],
        "unit_price": table["UnitPrice"],
        "quantity": table["Quantity"],
        "title": _known(pc.utf8_trim_whitespace(titles), ""),
        "country": _known(table["Country"], "Unspecified"),
    }
    return pa.table(columns)


def _known(texts: pa.ChunkedArray, unknown: str) -> pa.ChunkedArray:
    return pc.if_else(pc.equal(texts, unknown), None, texts)
