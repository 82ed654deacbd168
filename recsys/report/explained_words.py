"""What a report shows of a model that reads words: which of them its first answers come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from feature_store.columns import HISTORY
from feature_store.errors import DataError
from recsys.report.example_users import example_requests, titles_of
from recsys.report.explained import Summand
from recsys.runs.finished import Run
from recsys.runs.weights import training_of
from recsys.serving.bundle import Bundle
from recsys.serving.recommender import Recommender
from recsys.serving.word_reasons import reader_of_words, word_shares
from recsys.serving.word_shares import Said, Side

EXAMPLES, NAMED = 3, 6
"""Users that are shown, and words that are named of either side."""
_ORDERS = 4
_LEAST = 0.05  # of the largest: what adds less is not shaded


@dataclass(frozen=True)
class Marked:
    """A word, what it adds to the score, and how deep it is shaded, from 0 to 1."""

    text: str
    value: float
    shade: float


@dataclass(frozen=True)
class ShownSide:
    """Items, by title or id, with their words; and those words that add most, for or against, what
    all others add and what there is without any: the sum is the score."""

    items: list[tuple[str, list[Marked]]]
    summands: list[Summand]


@dataclass(frozen=True)
class ExplainedWords:
    """Why a user got the first item of the list, by words of the history and of the item."""

    user: str
    item: str
    title: str | None
    score: float
    history: ShownSide
    own: ShownSide


def explained_words(run: Run, retriever: str) -> list[ExplainedWords]:
    """Of every fourth of the example users, from the run's bundle; none where there is no bundle of
    this training, or none of its generators reads words."""
    reader = _reader(run)
    if reader is None:
        return []
    shown = []
    for user, history, items in example_requests(run, retriever)[1::4][:EXAMPLES]:
        request = pa.table({HISTORY: [history]})
        try:
            shares = word_shares(reader, request, items[0], orders=_ORDERS) if items else None
        except DataError:  # nothing of the history is known
            shares = None
        if shares is None:
            continue
        told = [said.item for said in (*shares.history.items, *shares.item.items)]
        titles = titles_of(run, reader.bundle.schema, [items[0], *told])
        shown.append(
            ExplainedWords(
                str(user),
                str(items[0]),
                titles.get(items[0]),
                shares.item.score,
                _shown(shares.history, titles),
                _shown(shares.item, titles),
            )
        )
    return shown


def _reader(run: Run) -> Recommender | None:
    try:
        bundle = Bundle.open(run.bundle)
        name = reader_of_words(bundle)
        if name is None or bundle.manifest.parts[name].about.training != training_of(run.files):
            return None
        return Recommender(bundle, name)
    except DataError:
        return None


def _shown(side: Side, titles: dict[Any, str]) -> ShownSide:
    every = [pair for said in side.items for pair in said.words]
    most = max([abs(added) for _, added in every], default=0.0) or 1.0
    order = sorted(every, key=lambda pair: -abs(pair[1]))
    named = [(*pair, True) for pair in order[:NAMED]]
    others = sum(added for _, added in order[NAMED:])
    rest = [("all other words", others, False), ("without any word", side.base, False)]
    summands = [
        Summand(name, value, min(1.0, abs(value) / most), concept=word)
        for name, value, word in [*named, *(each for each in rest if each[1])]
    ]
    return ShownSide(
        [(titles.get(s.item, str(s.item)), _marked(s, most)) for s in side.items], summands
    )


def _marked(said: Said, most: float) -> list[Marked]:
    shades = [abs(added) / most for _, added in said.words]
    return [
        Marked(word, added, shade if shade >= _LEAST else 0.0)
        for (word, added), shade in zip(said.words, shades, strict=True)
    ]
