"""What people look at in one opened bundle: who finds what, what each stage makes of it, why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from feature_store.columns import HISTORY
from feature_store.errors import DataError
from recsys.explorer.asking import Who, request_of
from recsys.explorer.cards import Card, Cards
from recsys.explorer.searching import items_by_words, users_by_beginning
from recsys.explorer.words import words_page
from recsys.inputs import Requests
from recsys.lists.funnel import Stage
from recsys.serving.cascade import Cascade
from recsys.serving.explainer import OTHERS, Explainer
from recsys.serving.explaining import explain_request, fate
from recsys.serving.generator import Generator
from recsys.serving.index.base import Queries
from recsys.serving.manifest import RankerRecord
from recsys.serving.recommender import Recommender
from recsys.serving.word_reasons import reader_of_words

Page = dict[str, Any]
_LOOKED_THROUGH = 1000  # places of a generator's list that an item is looked for in
_ALIKE = 3  # events of a history that an item is told to be like
_CONCEPTS = 8
_KINDS = {OTHERS: "all others"}


class Looking:
    """Answers of one bundle, as what a page shows; ids are texts."""

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self._bundle = recommender.bundle
        self.cards = Cards(self._bundle, recommender.finder.name)
        # rows of cards [n] of what the finder's places mean
        self._rows = self.cards.rows(recommender.finder.item_ids)

    def about(self) -> Page:
        """What the bundle is."""
        finder = self.recommender.finder
        generators = finder.generators if isinstance(finder, Cascade) else {finder.name: finder}
        about = finder.record.about
        return {
            "run": about.run,
            "model": about.model,
            "created": self._bundle.manifest.created,
            "items": len(finder.item_ids),
            "users": len(self.recommender.known.users()),
            "cascade": isinstance(finder, Cascade),
            "generators": list(generators),
            "titles": self.recommender.catalogue.has_titles,
            "words": reader_of_words(self._bundle) is not None,
            "example": self._example,
        }

    def items(self, text: str, most: int) -> list[Card]:
        """Cards of items by words of their titles."""
        return items_by_words(self.cards, text, most)

    def users(self, text: str, most: int) -> list[str]:
        """Ids of known users by their beginning."""
        return users_by_beginning(self.recommender.known, text, most)

    def somebody(self, who: Who) -> Page:
        """What is known of who asks: the history, oldest first, and features."""
        request = request_of(self.recommender, self.cards, who)
        had = request.column(HISTORY).combine_chunks()
        features = {
            name: str(value)
            for name in request.column_names
            if not pa.types.is_nested(request.schema.field(name).type)
            and (value := request.column(name)[0].as_py()) is not None
        }
        return {"history": self.cards.of_ids(had.flatten()), "features": features}

    def lists(self, who: Who, k: int, where: str | None = None) -> Page:
        """The answer of the first k that fit `where`, an expression over the catalogue, and what
        every generator, interest and stage made of it."""
        request = request_of(self.recommender, self.cards, who)
        began = time.perf_counter()
        answer = self.recommender.recommend_table(request, k=k, where=where)
        took = time.perf_counter() - began
        items = self.cards.of_ids(answer.column("item").combine_chunks())
        extra = [name for name in ("score", "fallback", "origin") if name in answer.column_names]
        told = answer.select(extra).to_pylist()
        shown = [
            {**card, **about, "rank": place + 1}
            for place, (card, about) in enumerate(zip(items, told, strict=True))
        ]
        asked, exclude = self.recommender.asked_of(request)
        allowed = self.recommender.allowed_of(where=where)
        return {
            "answer": shown,
            "milliseconds": 1000 * took,
            "stages": list(self._stages(asked, exclude, allowed, k)),
            "interests": self._interests(asked, exclude, allowed, k),
        }

    def why(self, who: Who, item: str, k: int, where: str | None = None) -> Page:
        """Why an item is among the first k, or why it is not; what does not fit `where` is not."""
        request = request_of(self.recommender, self.cards, who)
        row = int(self.cards.rows(pa.array([item]))[0])
        if row < 0:
            raise DataError(f"unknown item: {item}")
        return {
            **self._fate(request, item, row, k, self.recommender.allowed_of(where=where)),
            "card": self.cards.of(np.array([row]))[0],
            "alike": self._alike(request, row),
            "concepts": self._concepts(request, row),
        }

    def words(self, who: Who, item: str) -> Page:
        """The words that the score of an item comes from, by the first generator that reads words.

        Raises DataError where there is none, for an item that it cannot find, and for somebody
        without a history.
        """
        if self._reader is None:
            raise DataError(f"{self._bundle.folder}: none of its generators finds items by words")
        request = request_of(self.recommender, self.cards, who)
        row = int(self.cards.rows(pa.array([item]))[0])
        if row < 0:
            raise DataError(f"unknown item: {item}")
        return words_page(self._reader, self.cards, request, self.cards.ids[row].as_py())

    def _fate(self, request: pa.Table, item: str, row: int, k: int, allowed: Tensor | None) -> Page:
        if row not in self._rows:
            return {"told": "it is none of the items that may be found", "opinions": []}
        asked, exclude = self.recommender.asked_of(request)
        place = int(np.flatnonzero(self._rows == row)[0])
        if (exclude == place).any():
            return {"told": "it is in the history, and left out therefore", "opinions": []}
        if allowed is not None and not allowed[place]:
            return {"told": "it does not fit the expression, so nobody looks at it", "opinions": []}
        finder = self.recommender.finder
        if isinstance(finder, Cascade):
            opinions = explain_request(self.recommender, request, item, k)
            return {"told": fate(opinions, k), "opinions": opinions.to_pylist()}
        most = min(_LOOKED_THROUGH, len(finder.item_ids))
        scores, places, _ = finder.find_exactly(asked, most, exclude)
        at = (places[0] == place).nonzero()
        if not len(at):
            told = f"it is not among the first {most:,} of {len(finder.item_ids):,} items"
            return {"told": told, "opinions": []}
        rank, score = int(at[0]) + 1, float(scores[0, at[0, 0]])
        last = float(scores[0, min(k, most) - 1])
        told = f"it is shown at rank {rank}"
        if rank > k:
            told = f"it has rank {rank}: its score is {last - score:.4g} below that of rank {k}"
        opinion = dict(stage=finder.name, rank=rank, of=most, score=score, kept=rank <= k)
        return {"told": told, "opinions": [opinion]}

    def _stages(
        self, asked: Requests, exclude: Tensor, allowed: Tensor | None, k: int
    ) -> Iterator[Page]:
        finder = self.recommender.finder
        if not isinstance(finder, Cascade):
            return
        began = time.perf_counter()
        for stage in finder.stages(asked, k, exclude, allowed):
            took, began = time.perf_counter() - began, time.perf_counter()
            yield {
                "name": stage.name,
                "found": int((stage.items[0] >= 0).sum()),
                "milliseconds": 1000 * took,
                "items": self._scored(stage, k),
            }

    def _interests(
        self, asked: Requests, exclude: Tensor, allowed: Tensor | None, k: int
    ) -> list[Page]:
        """What each interest of a generator finds by itself, where there are several."""
        finder = self.recommender.finder
        if not isinstance(finder, Generator) or finder.items.dim() == 1:
            return []
        inputs = {column.name: column.from_requests(asked) for column in finder.record.inputs}
        queries = finder.queries(inputs)
        weights = queries.weights[0]
        if queries.vectors.shape[1] == 1:
            return []
        pages = []
        for interest in (weights > 0).nonzero().flatten().tolist():
            alone = Queries(
                queries.vectors[:, interest : interest + 1],
                torch.ones(1, 1),
                queries.space,
            )
            scores, places = finder.search(alone, k, exclude, allowed)
            pages.append(
                {
                    "weight": float(weights[interest] / weights.clamp(min=0).sum()),
                    "items": self._scored(Stage("", places, scores), k),
                }
            )
        return pages

    def _scored(self, stage: Stage, most: int) -> list[Card]:
        places, scores = stage.items[0, :most], stage.scores[0, :most]
        kept = places >= 0
        cards = self.cards.of(self._rows[places[kept].numpy()])
        return [
            {**card, "score": score}
            for card, score in zip(cards, scores[kept].tolist(), strict=True)
        ]

    def _alike(self, request: pa.Table, row: int) -> list[Page]:
        """The events of the history that are most like an item, by the cosines of their vectors, of
        the first generator that has vectors."""
        finder = self.recommender.finder
        generators = [finder] if isinstance(finder, Generator) else []
        if isinstance(finder, Cascade):
            generators = [part.generator for part in finder.generators.values()]
        by = next(
            (each for each in generators if each.items.dim() == 2 and each.record.width > 1), None
        )
        if by is None:
            return []
        rows = self.cards.rows(by.item_ids)
        place_of = np.full(len(self.cards.ids), -1)
        place_of[rows] = np.arange(len(rows))
        had = self.cards.rows(request.column(HISTORY).combine_chunks().flatten())
        had = np.unique(had[(had >= 0) & (had != row)])
        had = had[place_of[had] >= 0]
        if place_of[row] < 0 or not len(had):
            return []
        units = torch.nn.functional.normalize(by.items[place_of[[row, *had]]], dim=1)
        cosines = units[1:] @ units[0]
        best = cosines.argsort(descending=True, stable=True)[:_ALIKE]
        cards = self.cards.of(had[best.numpy()])
        return [
            {**card, "cosine": cosine}
            for card, cosine in zip(cards, cosines[best].tolist(), strict=True)
        ]

    def _concepts(self, request: pa.Table, row: int) -> list[Page]:
        """What concepts contribute, where a part explains its logits."""
        if self._explainer is None:
            return []
        key = self._bundle.schema.item
        pair = request.append_column(key, self.cards.ids.take(pa.array([row])))
        reasons = self._explainer.explain_table(pair, _CONCEPTS).to_pylist()
        return [
            {
                "concept": reason["concept"] or _KINDS.get(reason["kind"], reason["kind"]),
                "contribution": reason["contribution"],
            }
            for reason in reasons
        ]

    @cached_property
    def _example(self) -> str | None:
        """An expression over the catalogue."""
        facts = self.cards.facts
        return self.recommender.catalogue.example(facts[0]) if facts else None

    @cached_property
    def _reader(self) -> Recommender | None:
        """Who tells of words; of a cascade that is one of its generators."""
        name = reader_of_words(self._bundle)
        if name is None or name == self.recommender.finder.name:
            return None if name is None else self.recommender
        return Recommender(self._bundle, name)

    @cached_property
    def _explainer(self) -> Explainer | None:
        for name, part in self._bundle.manifest.parts.items():
            if isinstance(part, RankerRecord) and part.explains:
                return Explainer(self._bundle, name)
        return None
