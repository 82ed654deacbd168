"""A batch of questions for items, answered by what is live."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from recsys.server.isolating import each_alone
from recsys.server.listing import items_of
from recsys.server.live import Live
from recsys.server.models import Answer, Question, Recommend
from recsys.server.rows import ids_as, requests_of, users_of
from recsys.server.showing import Showing, columns_of
from recsys.server.stages import stages_of


class Options(NamedTuple):
    """What questions must share to be answered by one search."""

    k: int
    include_seen: bool
    exclude: tuple[int | str, ...]
    allowed: tuple[int | str, ...] | None
    where: str | None
    stages: bool

    @classmethod
    def of(cls, asked: Recommend) -> Options:
        """Those of a body."""
        allowed = None if asked.allowed is None else tuple(asked.allowed)
        exclude = tuple(asked.exclude)
        return cls(asked.k, asked.include_seen, exclude, allowed, asked.where, asked.stages)

    def filters(self, item: pa.DataType) -> dict[str, Any]:
        """Which items may be answered, whose ids are of a type."""
        return {
            "allowed": None if self.allowed is None else ids_as(self.allowed, item, "allowed"),
            "forbidden": ids_as(self.exclude, item, "exclude") if self.exclude else None,
            "where": self.where,
        }


class Wanted(NamedTuple):
    """A question, and how it is to be answered."""

    question: Question
    options: Options

    def group(self, live: Live) -> tuple[Any, ...]:
        """Those of one group make one table, and one search."""
        question = self.question
        times = live.reads_times and (question.history is None, question.history_time is None)
        return (self.options, times)


def recommend(
    live: Live, wanted: Sequence[Wanted], showing: Showing | None = None, arm: str = ""
) -> list[Answer | Exception]:
    """An answer for each question, or its own error."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, each in enumerate(wanted):
        groups.setdefault(each.group(live), []).append(place)
    for places in groups.values():  # rows are made of one kind after the other
        places.sort(key=lambda place: wanted[place].question.history is not None)
    answers: list[Answer | Exception] = [KeyError()] * len(wanted)
    for (options, _), places in groups.items():
        asked = [wanted[place].question for place in places]
        answer = partial(_answer, live, options, showing, arm)
        for place, given in zip(places, each_alone(answer, asked), strict=True):
            answers[place] = given
    return answers


def _answer(
    live: Live, options: Options, showing: Showing | None, arm: str, questions: Sequence[Question]
) -> list[Answer]:
    """Answers to questions of one group."""
    recommender, k = live.recommends(), options.k
    requests = requests_of(live, questions)
    filters = options.filters(recommender.finder.item_ids.type)
    answered = recommender.answer(
        requests,
        k=k if showing is None else showing.pool(k),
        exclude_seen=not options.include_seen,
        **filters,
    )
    places, scores = answered.places, answered.scores
    told: list[Answer] = [
        {"bundle": live.version, "fallback": fallback, "items": []}
        for fallback in answered.fallback.tolist()
    ]
    if showing is None:
        origins = answered.origins
    else:
        users = users_of(live, questions)
        places, scores, lists = showing.show(live, arm, users, answered, k)
        origins = answered.origins.gather(1, columns_of(places, answered.places))
        for answer, list_id in zip(told, lists, strict=True):
            answer["list_id"] = list_id
    names = recommender.names_of(origins[places >= 0])
    listed = items_of(recommender.finder.item_ids, recommender.catalogue, places, scores, names)
    for answer, question, items in zip(told, questions, listed, strict=True):
        answer["items"] = items
        if question.user is not None:
            answer["user"] = question.user
        if arm:
            answer["arm"] = arm
    if options.stages:
        of_stages = stages_of(live, requests, k, options.include_seen, **filters)
        for answer, stages in zip(told, of_stages, strict=True):
            answer["stages"] = stages
    return told
