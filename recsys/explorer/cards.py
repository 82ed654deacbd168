"""What people see of an item: its title, a picture, a price, and what else the catalogue says."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from feature_store.ids import as_ids
from recsys.serving.bundle import Bundle
from recsys.serving.catalogue import ItemCatalogue
from recsys.serving.manifest import RankerRecord
from recsys.serving.scorer import PRICES

Card = dict[str, Any]
_URLS_LOOKED_AT = 100
_LONGEST = 200  # letters of a text that stand on a card


class Cards:
    """Cards of all items of a bundle that a part of it knows, by their rows; ids are texts, since a
    page would round whole numbers beyond 2^53."""

    def __init__(self, bundle: Bundle, part: str) -> None:
        self._bundle = bundle
        self._items = bundle.vocabularies_of(part)[bundle.schema.item]
        self.ids = self._items.values
        self._catalogue = ItemCatalogue(bundle.catalogue, bundle.schema, self.ids)

    def rows(self, ids: pa.Array) -> np.ndarray:
        """Rows [m] of raw ids, which may be texts; -1 for unknown ones."""
        try:
            return self._items.encode(as_ids(ids, self.ids.type)) - 1
        except (pa.ArrowException, ValueError):  # one of them is none: each by itself
            if len(ids) == 1:
                return np.array([-1])
            return np.concatenate([self.rows(ids[place : place + 1]) for place in range(len(ids))])

    @cached_property
    def titles(self) -> pa.Array | None:
        """Of all items, empty where there is none; None in a catalogue without titles."""
        if not self._catalogue.has_titles:
            return None
        return self._catalogue.titles(torch.arange(len(self.ids)))

    def of_ids(self, ids: pa.Array) -> list[Card]:
        """Cards of raw ids; of an unknown one the id alone."""
        rows = self.rows(ids)
        known = iter(self.of(rows[rows >= 0]))
        names = ids.cast(pa.string()).to_pylist()
        return [
            next(known) if row >= 0 else {"item": name, "unknown": True}
            for row, name in zip(rows.tolist(), names, strict=True)
        ]

    def of(self, rows: np.ndarray) -> list[Card]:
        """Cards of rows [m]."""
        cards: list[Card] = [
            {"item": str(item)} for item in self.ids.take(pa.array(rows)).to_pylist()
        ]
        if self.titles is not None:
            titles = self.titles.take(pa.array(rows)).to_pylist()
            for card, title in zip(cards, titles, strict=True):
                card["title"] = title or None
        for column in (*self.facts, *([self.picture] if self.picture else [])):
            values = self._catalogue.column(column).take(pa.array(rows)).to_pylist()
            for card, value in zip(cards, values, strict=True):
                if value is None or value == []:
                    continue
                if column == self.picture:
                    card["picture"] = value
                else:
                    card.setdefault("facts", {})[column] = _told(value)
        for card, price in zip(cards, self._prices[rows].tolist(), strict=True):
            if price > 0:
                card["price"] = price
        return cards

    @cached_property
    def facts(self) -> tuple[str, ...]:
        """Columns of the catalogue that stand on cards."""
        return tuple(name for name in self._catalogue.columns if name != self.picture)

    @cached_property
    def picture(self) -> str | None:
        """The column of the catalogue that holds addresses of pictures."""
        for name in self._catalogue.columns:
            every = self._catalogue.column(name)
            if pa.types.is_string(every.type):
                looked_at = every.drop_null().slice(0, _URLS_LOOKED_AT)
                if len(looked_at) and pc.all(pc.starts_with(looked_at, "http")).as_py():
                    return name
        return None

    @cached_property
    def _prices(self) -> np.ndarray:
        """The last known prices [N], 0 where there is none."""
        prices = np.zeros(len(self.ids))
        for name, part in self._bundle.manifest.parts.items():
            if isinstance(part, RankerRecord) and part.priced:
                of_part = self._bundle.vocabularies_of(name)[self._bundle.schema.item]
                known = np.load(self._bundle.part_file(name, PRICES))
                rows = of_part.encode(self.ids)
                return np.where(rows > 0, known[rows], prices)
        return prices


def _told(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
