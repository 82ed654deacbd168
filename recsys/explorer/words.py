"""The words that a score comes from, as a page shows them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from recsys.explorer.cards import Cards
from recsys.serving.recommender import Recommender
from recsys.serving.word_reasons import word_shares
from recsys.serving.word_shares import Side

Page = dict[str, Any]
_ORDERS = 4  # somebody waits: sums are exact all the same


def words_page(reader: Recommender, cards: Cards, request: pa.Table, item: Any) -> Page:
    """What the words of the history and of an item add to the item's score for a request, by a
    generator that reads them. Raises DataError as `word_shares`."""
    shares = word_shares(reader, request, item, orders=_ORDERS)
    return {
        "generator": reader.generator.name,
        "score": shares.item.score,
        "history": _side(shares.history, cards),
        "item": _side(shares.item, cards),
    }


def _side(side: Side, cards: Cards) -> Page:
    ids = pa.array([said.item for said in side.items], cards.ids.type)
    told = zip(side.items, cards.of_ids(ids), strict=True)
    items = [
        {**card, "words": [{"word": word, "contribution": added} for word, added in said.words]}
        for said, card in told
    ]
    return {"items": items, "base": side.base}
