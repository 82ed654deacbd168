"""Which words of a history, and which of an item, make the score of the one for the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from feature_store.columns import HISTORY
from feature_store.errors import DataError
from recsys.serving.bundle import Bundle
from recsys.serving.manifest import GeneratorRecord
from recsys.serving.recommender import Recommender
from recsys.serving.sentence_words import sentence_shares
from recsys.serving.tfidf_words import tfidf_shares
from recsys.serving.vector_words import vector_shares
from recsys.serving.word_shares import Side, WordShares
from recsys.text.contributions import ORDERS


class WordReason(NamedTuple):
    """A summand of a score: what a `word` of an item of the history, or of the item that is asked
    about, adds to it; what all `others` of its side add; and last what there is with `none`."""

    side: Literal["history", "item"]
    kind: Literal["word", "others", "none"]
    item: Any
    word: str | None
    contribution: float


def reads_words(record: object) -> bool:
    """Whether the words that the scores of a part come from can be told."""
    return isinstance(record, GeneratorRecord) and bool(record.texts or record.words)


def reader_of_words(bundle: Bundle) -> str | None:
    """The first generator of a bundle whose words can be told; None where there is none."""
    return next((name for name, of in bundle.manifest.parts.items() if reads_words(of)), None)


def word_shares(
    recommender: Recommender, request: pa.Table, item: Any, *, orders: int = ORDERS
) -> WordShares:
    """What each word adds to the score of an item for one request, the inner product of both
    vectors; `orders` as of `recsys.text.contributions`, where that is not exact.

    Raises DataError for a generator that reads no words, an item that it cannot find, and a request
    without a known item in its history.
    """
    generator = recommender.generator
    if not reads_words(generator.record):
        raise DataError(
            f"{generator.bundle.folder}: {generator.name} is of {generator.record.about.model}, "
            "which reads no texts, or not by words: none add up to its scores"
        )
    generator.place_of(item)
    inputs, _ = recommender.encode(request)
    if not inputs[HISTORY][0].any():
        raise DataError("the request has no known item in its history: no word speaks for anything")
    if generator.record.words == "sum":
        return tfidf_shares(recommender, inputs, item)
    if generator.record.words == "vectors":
        return vector_shares(recommender, inputs, item, orders)
    return sentence_shares(recommender, inputs, item, orders)


def explain_words(
    recommender: Recommender, request: pa.Table, item: Any, most: int = 10
) -> pa.Table:
    """The `WordReason`s of an item for one request, a row each: those of either side sum to the
    score. Of either side the `most` words that add most, for or against, are named.

    Raises DataError as `word_shares`.
    """
    shares = word_shares(recommender, request, item)
    reasons = [*_told("history", shares.history, most), *_told("item", shares.item, most)]
    columns = map(list, zip(*reasons, strict=True))
    return pa.table(dict(zip(WordReason._fields, columns, strict=True)))


def _told(side: Literal["history", "item"], of: Side, most: int) -> Iterator[WordReason]:
    words = [(said.item, word, added) for said in of.items for word, added in said.words]
    words.sort(key=lambda told: -abs(told[2]))
    for item, word, added in words[:most]:
        yield WordReason(side, "word", item, word, added)
    if words[most:]:
        yield WordReason(side, "others", None, None, sum(added for *_, added in words[most:]))
    yield WordReason(side, "none", None, None, of.base)
